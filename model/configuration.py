"""The configuration of a BERT model: reads and validates `bert_config.json`.

BERT: Devlin et al., 2018 (arXiv:1810.04805).
"""

import dataclasses
from collections.abc import Callable

import tensorflow.compat.v1 as tf

from errors import UserError, explain_value_errors, printable
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


@dataclasses.dataclass(eq=False)
class BertConfig:
    """The content of a `bert_config.json`; the defaults are BERT-base's."""

    vocab_size: int  # number of word pieces
    hidden_size: int = 768  # width H of the encoder and the pooler
    num_hidden_layers: int = 12  # Transformer layers
    num_attention_heads: int = 12  # heads N of each layer; divides `hidden_size`
    intermediate_size: int = 3072  # width I of the feed-forward sublayer
    # Activation of the feed-forward sublayer, for `activations.get_activation`.
    hidden_act: str | Callable = "gelu"
    hidden_dropout_prob: float = 0.1  # after embeddings and sublayers
    attention_probs_dropout_prob: float = 0.1  # of attention weights
    max_position_embeddings: int = 512  # longest sequence, in word pieces
    type_vocab_size: int = 16  # number of segment ids
    # Standard deviation of the truncated normal that initializes all matrices but the
    # adapters'.
    initializer_range: float = 0.02

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
        with explain_value_errors(source):
            SCHEMA.check({field: getattr(self, field) for field in FIELDS})
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
        return dataclasses.asdict(self)

    def to_json_string(self):
        """The config as JSON text, keys sorted, with a final newline."""
        return files.format_json(self.to_dict())
