"""Full fine-tuning, as google-research/bert does."""

import dataclasses

from tuning.method import Method, register


@register
@dataclasses.dataclass(frozen=True)
class Full(Method):
    """Everything is trained."""

    name = "full"
    help = "everything"
    has_packages = False

    def trains(self, name, collection):
        return True
