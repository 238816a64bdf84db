"""Downloads SQuAD: the training and dev sets of versions 1.1 and 2.0, 82 MB.

    python fetch_squad.py --output_dir=squad

A file appears when it is complete and its SHA-256 is that of the published one.
"""

import system.startup  # noqa: F401  (before TensorFlow)

from absl import flags

import command_line
from tasks.squad import fetch

FLAGS = flags.FLAGS

_TEXTS = {
    "output_dir": "Local folder for train-v1.1.json, dev-v1.1.json and so on.",
    "base_url": "Address of a server that has the files.",
}


def define_flags(flag_values):
    """Defines this program's flags; returns the groups of its help."""
    define = command_line.flag_definer(_TEXTS, flag_values)
    return {
        "SQuAD": (
            define(command_line.DEFINE_path, "output_dir"),
            define(flags.DEFINE_string, "base_url", fetch.BASE_URL),
        )
    }


def main(argv):
    command_line.check_required(FLAGS, ["output_dir"])
    command_line.check_local(FLAGS, "output_dir")
    for name in fetch.SHA256:
        fetch.fetch_file(name, FLAGS.output_dir, FLAGS.base_url)


if __name__ == "__main__":
    command_line.run_program(main, __doc__, define_flags(FLAGS), FLAGS)
