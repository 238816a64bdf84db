"""All layer norms (Houlsby et al., 2019, section 3.4)."""

import modeling
from tuning.method import Method, register


@register
class LayerNorm(Method):
    """Trains layer norms and head."""

    name = modeling.LAYER_NORM
    help = "layer norms, head"

    def trains(self, name, collection):
        return collection in (modeling.LAYER_NORM, modeling.HEAD)
