"""Writes one SavedModel of a base and the adapter packages of many tasks, for serving.

    python export_saved_model.py --adapters=DIR --adapters=DIR ... \\
      --bert_config_file=FILE --init_checkpoint=PREFIX --vocab_file=FILE --output=DIR

`serving/saved_model.py` says what it takes and answers.
"""

import system.startup  # noqa: F401  (before TensorFlow)

from absl import flags

import command_line
import glue_data
from errors import reports_user_errors
from inputs import own_tasks
from serving import saved_model
from system import console
from weights import base_model

_REQUIRED = ("adapters", "init_checkpoint", "bert_config_file", "vocab_file", "output")


def define_flags(flag_values):
    """Defines this program's flags.

    Args:
      flag_values: an `absl.flags.FlagValues`.

    Returns:
      Dict from a group's title to its flags, for `command_line.help_text`.
    """
    to = {"flag_values": flag_values}
    return {
        "Required": (
            *command_line.define_package_flags(flag_values),
            command_line.DEFINE_path(
                "output",
                "Folder of the model's versions, on this machine. The new one gets the "
                "number after the highest there; the others stay as they are.",
                **to,
            ),
        ),
        "Tasks": (command_line.define_task_configs(flag_values),),
        "Size": (
            flags.DEFINE_enum(
                "frozen_dtype",
                "float32",
                sorted(saved_model.DTYPES),
                "How the base's weights are stored. bfloat16 halves them, on disk and "
                "in memory, and rounds them to 8 bits, so scores change a little. All "
                "is computed in float32 either way.",
                **to,
            ),
        ),
    }


@reports_user_errors
def main(argv):
    """Exports what the flags name."""
    console.start(flags.FLAGS.verbosity)
    values = flags.FLAGS
    command_line.check_required(values, _REQUIRED)
    base = base_model.BaseFiles(
        values.init_checkpoint, values.bert_config_file, values.vocab_file
    )
    described = own_tasks.load_tasks(values.task_config, glue_data.GLUE_TASKS)
    saved_model.export(
        values.adapters, base, values.output, values.frozen_dtype, described
    )


if __name__ == "__main__":
    groups = define_flags(flags.FLAGS)
    command_line.run_program(main, __doc__, groups, flags.FLAGS)
