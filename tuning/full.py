"""Full fine-tuning, as google-research/bert does."""

from tuning.method import Method, register


@register
class Full(Method):
    """Trains all variables."""

    name = "full"
    help = "everything"
    has_packages = False

    def trains(self, name, collection):
        return True
