"""The base that packages belong to: its three files, held against each other."""

from typing import NamedTuple

import modeling
import tokenization
from errors import UserError
from inputs import features
from system import files
from weights import checkpoints, variable_shapes


class BaseFiles(NamedTuple):
    """The files of a base, as the user gives them."""

    init_checkpoint: str | None = None  # path without file endings
    bert_config_file: str | None = None
    vocab_file: str | None = None


class BaseModel(NamedTuple):
    """A base whose files fit each other."""

    bert_config: modeling.BertConfig
    vocab: dict[str, int]
    # What a package has to agree with, see `adapter_package.find_mismatches`.
    identity: dict[str, object]


def read(base, remedy=None):
    """Reads a base, all but its weights.

    Args:
      base: `BaseFiles`, all three.
      remedy: what to do where its checkpoint lacks something, for the message.

    Returns:
      A `BaseModel`.

    Raises:
      UserError: a file cannot be read, or they are not of one base.
    """
    bert_config = modeling.BertConfig.from_json_file(base.bert_config_file)
    vocab = tokenization.load_vocab(base.vocab_file)
    features.check_vocabulary(
        base.vocab_file, vocab, bert_config.vocab_size, base.bert_config_file
    )
    check_shapes(base.init_checkpoint, bert_config, remedy)
    identity = {
        "bert_config": bert_config.to_dict(),
        "vocabulary": files.digest(base.vocab_file),
    }
    return BaseModel(bert_config, vocab, identity)


def check_shapes(checkpoint, bert_config, remedy=None):
    """Refuses a base of other sizes, more layers among them.

    Args:
      checkpoint: path without file endings.
      bert_config: a `modeling.BertConfig`.
      remedy: what to do, for the message.

    Raises:
      UserError: the first variable that does not fit.
    """
    shapes = variable_shapes.frozen_shapes(bert_config)
    checkpoint = checkpoints.Checkpoint(checkpoint)
    checkpoint.check_fit(shapes, [], remedy=remedy)
    more = "bert/encoder/layer_%d/output/dense/kernel" % bert_config.num_hidden_layers
    if more in checkpoint.shapes:
        raise UserError(
            "checkpoint %s has more than %d layers, the num_hidden_layers of this "
            "model: %s"
            % (
                checkpoint.path,
                bert_config.num_hidden_layers,
                remedy or "give the base's own config, --bert_config_file",
            )
        )
