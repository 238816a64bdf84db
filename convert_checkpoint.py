"""Converts encoders and adapters from and to the formats of other libraries.

--to=checkpoint   an encoder in Hugging Face's layout -> bert_model.ckpt,
                  bert_config.json and vocab.txt, as in Google's releases
--to=huggingface  such a checkpoint, optionally with the layer norms of an adapter
                  package -> Hugging Face's layout, for transformers' BertModel
--to=package      an adapter of AdapterHub's library -> an adapter package
--to=adapterhub   an adapter package -> the format of AdapterHub's library
"""

import system.startup  # noqa: F401  (before TensorFlow)

from absl import flags

import command_line
import glue_data
from errors import UserError, reports_user_errors
from exchange import conversion
from system import console
from weights import base_model, package_conversion

_BASE = ("init_checkpoint", "bert_config_file", "vocab_file")
_TASK = ("task_name", "task_config", "labels", "do_lower_case", "max_seq_length")
# --to -> its required flags beside --output_dir, and its optional flags.
_DIRECTIONS = {
    "checkpoint": (("input_dir",), ("init_missing_pooler", "seed")),
    "huggingface": (_BASE, ("adapters", "do_lower_case")),
    "package": (("input_dir", *_BASE), (*_TASK, "new_head", "seed")),
    "adapterhub": (("adapters",), ()),
}


def define_flags(values=flags.FLAGS):
    """Defines this program's flags; returns the groups of its help."""
    to = {"flag_values": values}
    return {
        "All": (
            flags.DEFINE_enum(
                "to",
                "checkpoint",
                list(_DIRECTIONS),
                "What to convert to: %s." % ", ".join(_DIRECTIONS),
                **to,
            ),
            command_line.DEFINE_path(
                "output_dir", "Folder to create.", values, has_checkpoint=True
            ),
        ),
        "Input": (
            command_line.DEFINE_path(
                "input_dir",
                "For checkpoint: folder of a BERT encoder in Hugging Face's layout: "
                "config.json, vocab.txt or tokenizer.json, and model.safetensors or "
                "pytorch_model.bin, or an index with shards of them. For package: "
                "folder that save_adapter of AdapterHub's library wrote.",
                values,
            ),
            command_line.DEFINE_path(
                "adapters",
                "For adapterhub: the adapter package. For huggingface: optional, a "
                "package whose layer norms replace those of the base model.",
                values,
            ),
        ),
        "Base model, for huggingface and package": command_line.define_base_flags(
            values
        ),
        "For --to=package": _package_flags(to),
        "For --to=package and --to=huggingface": (
            flags.DEFINE_bool(
                "do_lower_case",
                None,
                "Whether text is lower-cased; by default as --adapters, or else true.",
                **to,
            ),
        ),
        "For --to=checkpoint": (
            flags.DEFINE_bool(
                "init_missing_pooler",
                False,
                "Initialize a random pooler if the encoder has none; without this flag "
                "that is an error. Adapter tuning does not train the pooler.",
                **to,
            ),
        ),
        "Randomness": (
            flags.DEFINE_integer(
                "seed", 12345, "Seed of --init_missing_pooler and --new_head.", **to
            ),
        ),
    }


def _package_flags(to):
    return (
        flags.DEFINE_string(
            "task_name",
            None,
            "Task of the adapter: one of GLUE, or another name together with --labels.",
            **to,
        ),
        command_line.define_task_config(**to),
        flags.DEFINE_list(
            "labels",
            None,
            "Labels in the order of the head's outputs, separated by commas; optional "
            "if the head has the task's labels.",
            **to,
        ),
        flags.DEFINE_integer(
            "max_seq_length", 128, "Maximum length of an input in word pieces.", **to
        ),
        flags.DEFINE_bool(
            "new_head",
            False,
            "Initialize a new head, which has to be trained, instead of the adapter's.",
            **to,
        ),
    )


@reports_user_errors
def main(argv):
    """Runs the conversion."""
    console.start(flags.FLAGS.verbosity)
    values = flags.FLAGS
    _check_flags(values)
    if values.to == "checkpoint":
        conversion.convert(
            values.input_dir, values.output_dir, values.init_missing_pooler, values.seed
        )
    elif values.to == "huggingface":
        conversion.write_encoder(
            _base(values), values.output_dir, values.adapters, values.do_lower_case
        )
    elif values.to == "package":
        options = package_conversion.PackageOptions(
            _task(values),
            values.task_name,
            values.labels,
            values.do_lower_case,
            values.max_seq_length,
        )
        conversion.import_adapter(
            values.input_dir,
            _base(values),
            options,
            values.output_dir,
            values.seed if values.new_head else None,
        )
    else:
        conversion.export_adapter(values.adapters, values.output_dir)


def _task(values):
    """The `task_data.Task` of the flags; None: the task has only a name."""
    if values.task_config:
        return glue_data.select_task(values.task_name, values.task_config)[0]
    try:
        return glue_data.get_task(values.task_name)
    except UserError:
        return None


def _base(values):
    return base_model.BaseFiles(*(values[name].value for name in _BASE))


def _check_flags(values):
    """Refuses missing and superfluous flags; raises a `UserError`."""
    required, optional = _DIRECTIONS[values.to]
    required = ("output_dir", *required)
    missing = ["--" + name for name in required if not values[name].value]
    if missing:
        raise UserError("--to=%s needs %s." % (values.to, " and ".join(missing)))
    if values.to == "package" and not (values.task_name or values.task_config):
        raise UserError("--to=package needs --task_name or --task_config.")
    others = {name for lists in _DIRECTIONS.values() for part in lists for name in part}
    for name in sorted(others - {*required, *optional}):
        if values[name].present:
            raise UserError(
                "--%s does not go with --to=%s, which takes %s: leave it out, or give "
                "another --to (%s)."
                % (
                    name,
                    values.to,
                    ", ".join("--" + each for each in (*required, *optional)),
                    ", ".join(_DIRECTIONS),
                )
            )
    if not 0 <= values.seed < 2**32:
        raise UserError(
            "--seed=%d: it must be between 0 and %d." % (values.seed, 2**32 - 1)
        )


if __name__ == "__main__":
    groups = define_flags()
    command_line.run_program(
        main, "python convert_checkpoint.py: " + __doc__, groups, flags.FLAGS
    )
