"""The top layers of the encoder (Houlsby et al., 2019, section 3.3).

The pooler is trained too, as in google-research/bert; the embeddings never are.
"""

import re

import modeling
from model import layer_ranges
from tuning import head
from tuning.method import Method, register


@register
class TopK(Method):
    """Trains the top layers, pooler and head."""

    name = "top_k"
    argument = "N"
    help = "the N top layers, pooler, head"

    layers: tuple[int, ...] = ()  # ascending, counted from 0

    @classmethod
    def parse(cls, argument, settings, num_layers):
        count = int(argument) if re.fullmatch("[0-9]{1,9}", argument) else 0
        if not 1 <= count <= num_layers:
            raise ValueError(
                "the model has %d layers, so N can be 1 to %d"
                % (num_layers, num_layers)
            )
        return cls(tuple(range(num_layers - count, num_layers)))

    @property
    def text(self):
        return "%s:%d" % (self.name, len(self.layers))

    @property
    def description(self):
        return "layers %s, pooler, head" % layer_ranges.format_layers(self.layers)

    def trains(self, name, collection):
        match = re.search(r"(?:^|/)(?:encoder/layer_(\d+)|pooler)/", name)
        if match and match[1]:
            return int(match[1]) in self.layers
        return match is not None or collection == modeling.HEAD

    @property
    def merged_method(self):
        return head.Head()
