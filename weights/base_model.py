"""The base model that packages belong to: its three files, checked together."""

from typing import NamedTuple

import modeling
import tokenization
from errors import UserError
from inputs import features
from system import files
from weights import checkpoints, model_variables


class BaseFiles(NamedTuple):
    """The files of a base model."""

    init_checkpoint: str | None = None  # path without file endings
    bert_config_file: str | None = None
    vocab_file: str | None = None


class BaseModel(NamedTuple):
    """A base model whose files fit each other."""

    checkpoint: checkpoints.Checkpoint
    bert_config: modeling.BertConfig
    vocab: dict[str, int]
    identity: dict[str, object]  # what `adapter_package.find_mismatches` compares


def read(base, remedy=None):
    """Reads a `BaseModel`, the values of its weights excepted, from `BaseFiles`.

    A `UserError` is raised if a file cannot be read, or the files belong to different
    models; it ends with `remedy` for the checkpoint.
    """
    bert_config = modeling.BertConfig.from_json_file(base.bert_config_file)
    vocab = tokenization.load_vocab(base.vocab_file)
    features.check_vocabulary(
        base.vocab_file, vocab, bert_config.vocab_size, base.bert_config_file
    )
    checkpoint = checkpoints.Checkpoint(base.init_checkpoint)
    check_shapes(checkpoint, bert_config, remedy)
    identity = {
        "bert_config": bert_config.to_dict(),
        "vocabulary": files.digest(base.vocab_file),
    }
    return BaseModel(checkpoint, bert_config, vocab, identity)


def check_shapes(checkpoint, bert_config, remedy=None):
    """Refuses a `checkpoints.Checkpoint` of other sizes or with more layers.

    The `UserError` has the first variable that does not fit, and the remedy.
    """
    shapes = model_variables.frozen_shapes(bert_config)
    checkpoint.check_fit(shapes, remedy=remedy)
    more = "bert/encoder/layer_%d/output/dense/kernel" % bert_config.num_hidden_layers
    if more in checkpoint.shapes:
        raise UserError(
            "checkpoint %s has more than %d layers, the num_hidden_layers of this "
            "model: %s"
            % (
                checkpoint.path,
                bert_config.num_hidden_layers,
                remedy or "give the config of the base model, `bert_config_file`",
            )
        )
