"""The head alone."""

import modeling
from tuning.method import Method, register


@register
class Head(Method):
    """The defaults of `Method`."""

    name = modeling.HEAD
    help = "head"
