"""All layer norms (Houlsby et al., 2019, section 3.4)."""

import dataclasses

import modeling
from tuning.method import Method, register


@register
@dataclasses.dataclass(frozen=True)
class LayerNorm(Method):
    """Layer norms and head are trained."""

    name = modeling.LAYER_NORM
    help = "layer norms, head"

    def trains(self, name, collection):
        return collection in (modeling.LAYER_NORM, modeling.HEAD)
