"""BitFit: the biases alone (Ben Zaken et al., 2021, arXiv:2106.10199)."""

import modeling
from tuning.method import Method, register


@register
class BitFit(Method):
    """Trains all biases, including layer norms' beta, and the head."""

    name = "bitfit"
    help = "all biases, head"

    def trains(self, name, collection):
        return collection == modeling.HEAD or name.endswith(("/bias", "/beta"))
