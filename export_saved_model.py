"""Exports a base model and the adapter packages of many tasks as one SavedModel.

    python export_saved_model.py --adapters=DIR --adapters=DIR ... \\
      --bert_config_file=FILE --init_checkpoint=PREFIX --vocab_file=FILE --output=DIR

`serving/saved_model.py` describes its inputs and outputs.
"""

import system.startup  # noqa: F401  (before TensorFlow)

from absl import flags

import command_line
import glue_data
from serving import saved_model
from tasks import own_tasks
from weights import base_model, package_conversion

_TEXTS = {
    "output": "Local folder of the model's versions. The new version gets the next "
    "number; others are kept.",
    "frozen_dtype": "dtype in which the base model's weights are stored. bfloat16 "
    "halves their size and rounds them to 8 bits, so scores change a little. "
    "Computation is in float32 either way.",
}


def define_flags(flag_values):
    """Defines this program's flags; returns the groups of its help."""
    define = command_line.flag_definer(_TEXTS, flag_values)
    dtypes = sorted(saved_model.DTYPES)
    return {
        "Required": (
            *command_line.define_package_flags(flag_values),
            define(command_line.DEFINE_path, "output"),
        ),
        "Tasks": (command_line.define_task_configs(flag_values),),
        "Size": (define(flags.DEFINE_enum, "frozen_dtype", "float32", dtypes),),
    }


def main(argv):
    """Exports the packages."""
    values = flags.FLAGS
    values["adapters"].value = package_conversion.find_packages(
        values.adapters, values.init_checkpoint
    )
    names = base_model.BaseFiles._fields
    command_line.check_required(values, ["adapters", *names, "output"])
    base = base_model.BaseFiles(*(values[name].value for name in names))
    known_tasks = own_tasks.load_tasks(values.task_config, glue_data.GLUE_TASKS)
    saved_model.export(
        values.adapters, base, values.output, values.frozen_dtype, known_tasks
    )


if __name__ == "__main__":
    groups = define_flags(flags.FLAGS)
    command_line.run_program(main, __doc__, groups, flags.FLAGS)
