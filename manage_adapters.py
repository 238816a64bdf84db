"""Makes, shows, checks and merges adapter packages, the folders of tuned tasks.

python manage_adapters.py export ...   a package from a full checkpoint
python manage_adapters.py info ...     what packages are
python manage_adapters.py verify ...   whether packages fit a base
python manage_adapters.py merge ...    base and package as one checkpoint
python manage_adapters.py COMMAND --help
"""

import system.startup  # noqa: F401  (before TensorFlow)

import json
import shutil
import textwrap
from collections.abc import Callable
from typing import NamedTuple

from absl import flags

import command_line
import glue_data
import tokenization
from errors import UserError, reports_user_errors
from model import layer_ranges
from system import console, files
from weights import (
    adapter_package,
    base_model,
    checkpoints,
    package_conversion,
    package_report,
)

_HELP = {"-h", "-help", "--help", "--helpshort", "help"}


# --- the commands ---------------------------------------------------------------


def export(values, packages):
    """Writes the package of a checkpoint."""
    if packages:
        raise UserError(
            "export takes flags alone, %r is none; --checkpoint names what is exported"
            % packages[0]
        )
    task = None
    if values.task_name or values.task_config:
        task, _ = glue_data.select_task(values.task_name, values.task_config)
    given = package_conversion.PackageOptions(
        task,
        do_lower_case=values.do_lower_case,
        max_seq_length=values.max_seq_length,
    )
    base = base_model.BaseFiles(
        values.init_checkpoint, values.bert_config_file, values.vocab_file
    )
    package = package_conversion.export(
        values.checkpoint, values.output.rstrip("/"), given, base
    )
    print("Wrote %s:" % package.path)
    print("\n".join(package_report.format_summary(package)))


def info(values, packages):
    """Prints one package in full, or several as a table."""
    found, broken = [], []
    for folder in packages:
        try:
            found.append(adapter_package.read(folder))
        except UserError as error:
            broken.append(str(error))
    if values.json:
        entries = [
            {"path": each.path, "bytes": each.file_bytes, "config": each.config}
            for each in found
        ]
        print(json.dumps(entries, indent=2, sort_keys=True))
    elif len(packages) == 1 and found:
        print("\n".join(package_report.format_summary(found[0])))
    elif found:
        print("\n".join(package_report.format_table(found)))
    if broken:
        raise UserError(*broken)


def verify(values, packages):
    """Prints for each package that it fits the base, or what differs."""
    given = {}
    if values.vocab_file:
        tokenization.load_vocab(values.vocab_file)  # Says so where it is none.
        given["vocabulary"] = files.digest(values.vocab_file)
    base = checkpoints.Checkpoint(values.init_checkpoint)
    wrong = 0
    for folder in packages:
        try:
            package = adapter_package.read(folder)
            problems = adapter_package.find_mismatches(package, given)
            problems += package_conversion.find_base_mismatches(package, base)
        except UserError as error:
            problems = [str(error)]
        wrong += bool(problems)
        for text in problems or ["OK"]:
            print("%s: %s" % (folder, text))
    if wrong:
        raise UserError(
            "%d of %d packages are damaged or do not fit" % (wrong, len(packages))
        )


def merge(values, packages):
    """Writes base and package as one checkpoint."""
    if len(packages) > 1:
        raise UserError(
            "merge takes one package, given are %d: a checkpoint holds one task"
            % len(packages)
        )
    package = package_conversion.merge(
        packages[0], values.init_checkpoint, values.output
    )
    wanted = ["--train_policy=" + package.policy.text]
    if package.adapter_size:
        wanted = ["--adapter_size=%d" % package.adapter_size]
    if package.policy.adapter_layers:
        layers = layer_ranges.format_layers(package.policy.adapter_layers)
        wanted.append("--adapter_layers=" + layers)
    print(
        "Wrote %s: base and task %s; give it as --init_checkpoint with %s"
        % (values.output, package.task, " ".join(wanted))
    )


# --- their flags ----------------------------------------------------------------


def _export_flags(values):
    return {
        "Required": (
            command_line.DEFINE_path(
                "checkpoint",
                "Checkpoint of a trained model, of this program or the original: the "
                "path without endings, such as OUTPUT_DIR/model.ckpt-573.",
                values,
                has_checkpoint=True,
            ),
            command_line.DEFINE_path("output", "Folder to make, the package.", values),
        ),
        "Required where no run.json lies beside the checkpoint": (
            flags.DEFINE_string(
                "task_name",
                None,
                "Task of GLUE, in any case: %s." % ", ".join(glue_data.GLUE_TASKS),
                flag_values=values,
            ),
            command_line.define_task_config(values),
            command_line.DEFINE_path(
                "bert_config_file", "bert_config.json of the model.", values
            ),
            command_line.DEFINE_path(
                "vocab_file", "Vocabulary that it was trained with.", values
            ),
        ),
        "Told by run.json too": (
            flags.DEFINE_bool(
                "do_lower_case",
                None,
                "Whether its text was lower-cased; true if nothing says so.",
                flag_values=values,
            ),
            flags.DEFINE_integer(
                "max_seq_length",
                None,
                "Its longest input in word pieces; 128 if nothing says so.",
                flag_values=values,
            ),
        ),
        "Checkpoints of --checkpoint_content=trained": (
            command_line.DEFINE_path(
                "init_checkpoint",
                "Base of a checkpoint that holds trained variables alone.",
                values,
                has_checkpoint=True,
            ),
        ),
    }


def _info_flags(values):
    return {
        "Output": (
            flags.DEFINE_bool(
                "json",
                False,
                "Print a JSON list of the packages' configs, for programs.",
                flag_values=values,
            ),
        )
    }


def _base_flag(values):
    return command_line.DEFINE_path(
        "init_checkpoint",
        "The base: a checkpoint with its frozen weights, the path without endings, "
        "such as .../bert_model.ckpt.",
        values,
        has_checkpoint=True,
    )


def _verify_flags(values):
    return {
        "Required": (_base_flag(values),),
        "Checked where it is given": (
            command_line.DEFINE_path("vocab_file", "Vocabulary of the base.", values),
        ),
    }


def _merge_flags(values):
    return {
        "Required": (
            _base_flag(values),
            command_line.DEFINE_path(
                "output",
                "Checkpoint to write: the path without endings, such as "
                "merged/model.ckpt. Nothing is overwritten.",
                values,
            ),
        )
    }


class Command(NamedTuple):
    """What a word after the program's name does."""

    run: Callable  # of the flags' values and the list of packages
    define_flags: Callable  # of `FlagValues`; returns the groups of its help
    required: tuple[str, ...]  # flags
    packages: str  # how they are given; "" if none is taken
    about: str


COMMANDS = {
    "export": Command(
        export,
        _export_flags,
        ("checkpoint", "output"),
        "",
        "Writes the adapter package of a checkpoint. Adapter size and number of labels "
        "are those of its shapes. Beside a checkpoint of this program lie run.json and "
        "eval_results.json: task, config, vocabulary, settings and dev scores come "
        "from there.",
    ),
    "info": Command(
        info,
        _info_flags,
        (),
        "PACKAGE [PACKAGE ...]",
        "Says what a package is, or prints a table of several: task, adapter size, "
        "trained parameters, bytes, dev scores and base.",
    ),
    "verify": Command(
        verify,
        _verify_flags,
        ("init_checkpoint",),
        "PACKAGE [PACKAGE ...]",
        "Says OK, or what is damaged or differs from the base; ends with status 1 "
        "unless all packages are OK.",
    ),
    "merge": Command(
        merge,
        _merge_flags,
        ("init_checkpoint", "output"),
        "PACKAGE",
        "Writes base and package as one checkpoint, which this program and the "
        "original load as --init_checkpoint.",
    ),
}


# --- the command line -----------------------------------------------------------


def _help_text(name, values, groups):
    command = COMMANDS[name]
    words = ["python manage_adapters.py", name, command.packages, "[flags]"]
    width = max(40, shutil.get_terminal_size((88, 24)).columns)
    about = [" ".join(filter(None, words)), "", *textwrap.wrap(command.about, width)]
    return command_line.help_text("\n".join(about), groups, values, width)


@reports_user_errors
def main(argv):
    """Runs one command.

    Args:
      argv: the program's name, the command, then flags and packages in any order.
    """
    console.start()
    words = argv[1:]
    for word in words:
        command_line.check_utf_8(word, word)
    if not words or words[0] in _HELP:
        print(__doc__)
    if not words:
        raise UserError("no command is given: name one of %s" % ", ".join(COMMANDS))
    if words[0] in _HELP:
        return
    name = words[0]
    if name not in COMMANDS:
        raise UserError(
            "%r is no command: the first word is one of %s"
            % (name, ", ".join(COMMANDS))
        )
    command = COMMANDS[name]
    values = flags.FlagValues()
    groups = command.define_flags(values)
    if _HELP.intersection(words[1:]):
        print(_help_text(name, values, groups), end="")
        return
    values.set_gnu_getopt(True)
    see = "python manage_adapters.py %s --help says more" % name
    try:
        packages = values(words)[1:]
    except flags.Error as error:
        raise UserError("%s; %s" % (error, see)) from None
    missing = ["--" + flag for flag in command.required if not values[flag].value]
    if command.packages and not packages:
        missing.insert(0, command.packages)
    if missing:
        raise UserError("%s needs %s; %s" % (name, " and ".join(missing), see))
    for folder in packages:
        command_line.check_path(folder, folder)
    command_line.expand_paths(values)
    command.run(values, packages)


if __name__ == "__main__":
    command_line.run_program(main)
