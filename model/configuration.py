"""The configuration of a BERT model: reads and validates `bert_config.json`.

BERT: Devlin et al., 2018 (arXiv:1810.04805).
"""

import copy
import json

import tensorflow.compat.v1 as tf

from errors import UserError, printable
from model import activations
from system import files, schema, wording

CONFIG_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
# Google's largest models have 24 layers; each takes 3.3 MB of a training graph.
_MAX_LAYERS = 1000
SCHEMA = schema.Object(
    {
        **dict.fromkeys(CONFIG_SIZES, schema.integer(1, 10**9)),
        "num_hidden_layers": schema.integer(1, _MAX_LAYERS),
        "hidden_act": schema.Value(
            activations.is_activation, "one of " + ", ".join(activations.ACTIVATIONS)
        ),
        "hidden_dropout_prob": schema.number(minimum=0, below=1),
        "attention_probs_dropout_prob": schema.number(minimum=0, below=1),
        "initializer_range": schema.number(above=0),
    }
)
FIELDS = tuple(SCHEMA.required)

_MAX_GB = 160  # of all weights in float32; those of Google's largest models take 1.3


class BertConfig:
    """The content of a `bert_config.json`."""

    def __init__(
        self,
        vocab_size,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        hidden_act="gelu",
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        max_position_embeddings=512,
        type_vocab_size=16,
        initializer_range=0.02,
    ):
        """The defaults are BERT-base's.

        Args:
          vocab_size: number of word pieces.
          hidden_size: width H of the encoder and the pooler.
          num_hidden_layers: number of Transformer layers.
          num_attention_heads: heads N of each layer; divides `hidden_size`.
          intermediate_size: width I of the feed-forward sublayer.
          hidden_act: activation of the feed-forward sublayer, a name for
            `activations.get_activation` or a function of a tensor.
          hidden_dropout_prob: dropout probability after embeddings and sublayers.
          attention_probs_dropout_prob: dropout probability of attention weights.
          max_position_embeddings: longest sequence, in word pieces.
          type_vocab_size: number of segment ids.
          initializer_range: standard deviation of the truncated normal that
            initializes all matrices but the adapters'.
        """
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range

    @classmethod
    def from_dict(cls, json_object):
        """Makes a config from a dict; entries other than `FIELDS` are ignored."""
        config = cls(vocab_size=None)
        for key in FIELDS:
            if key in json_object:
                setattr(config, key, json_object[key])
        return config

    @classmethod
    def from_json_file(cls, json_file):
        """Reads a config from a file; ignored entries are logged.

        Raises:
          UserError: the file is missing, is no JSON object, or fails `validate`.
        """
        entries = files.read_json(
            json_file,
            "give the bert_config.json of the pre-trained model, `bert_config_file`",
        )
        config = cls.from_dict(entries)
        config.validate(json_file)
        ignored = sorted(set(entries) - set(FIELDS))
        if ignored:
            tf.logging.info(
                "%s: ignored, not entries of BERT: %s",
                json_file,
                printable(", ".join(ignored), 1000),
            )
        return config

    def validate(self, source):
        """Validates the sizes; `source` is the config's origin, for the message.

        Raises:
          UserError: names the field, its value and the allowed values.
        """
        try:
            SCHEMA.check({field: getattr(self, field) for field in FIELDS})
        except ValueError as error:
            raise UserError("%s: %s" % (source, error)) from None
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                "%s: hidden_size %.80r is not a multiple of num_attention_heads %.80r"
                % (source, self.hidden_size, self.num_attention_heads)
            )
        H, wide = self.hidden_size, self.intermediate_size
        rows = self.vocab_size + self.max_position_embeddings + self.type_vocab_size
        layer = 4 * H * (H + 1) + H * wide + wide + wide * H + H + 4 * H
        weights = H * (rows + 2) + self.num_hidden_layers * layer + H * (H + 1)
        if 4 * weights > _MAX_GB * 10**9:
            sizes = ("%s %.40r" % (name, getattr(self, name)) for name in CONFIG_SIZES)
            raise UserError(
                "%s: the weights of this model take %s GB of memory, and at most %d "
                "are allowed: correct its sizes (%s)"
                % (
                    source,
                    wording.thousands(4 * weights // 10**9),
                    _MAX_GB,
                    ", ".join(sizes),
                )
            )

    def to_dict(self):
        """The config as a dict that `from_dict` reads back."""
        return copy.deepcopy(self.__dict__)

    def to_json_string(self):
        """The config as JSON text, keys sorted, with a final newline."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"
