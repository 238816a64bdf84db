"""The head alone."""

import dataclasses

import modeling
from tuning.method import Method, register


@register
@dataclasses.dataclass(frozen=True)
class Head(Method):
    """The defaults of `Method`."""

    name = modeling.HEAD
    help = "head"
