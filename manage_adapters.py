"""Exports, shows, verifies and merges adapter packages.

python manage_adapters.py export ...   write the package of a checkpoint
python manage_adapters.py info ...     show packages
python manage_adapters.py list ...     show all packages in folders
python manage_adapters.py card ...     write model cards again, with a license
python manage_adapters.py verify ...   check packages against a base model
python manage_adapters.py merge ...    write base model and package as one checkpoint
python manage_adapters.py COMMAND --help
"""

import system.startup  # noqa: F401  (before TensorFlow)

import textwrap
from collections.abc import Callable
from typing import NamedTuple

import tensorflow.compat.v1 as tf
from absl import flags

import command_line
import glue_data
import tokenization
from errors import UserError, name_flags
from exchange import packages as libraries
from system import files, wording
from weights import (
    adapter_package,
    base_model,
    checkpoints,
    package_conversion,
    package_report,
)

_HELP = {*command_line.HELP_FLAGS, "help"}


def export(values, _):
    """Writes the adapter package of a checkpoint.

    Adapter size and number of labels follow from its shapes; task, config, vocabulary,
    settings and dev scores come from run.json and eval_results.json beside it.
    """
    task = None
    if values.task_name or values.task_config:
        task, _ = glue_data.select_task(values.task_name, values.task_config)
    case, length = values.do_lower_case, values.max_seq_length
    options = package_conversion.PackageOptions(
        task, do_lower_case=case, max_seq_length=length
    )
    names = base_model.BaseFiles._fields
    base = base_model.BaseFiles(*(values[name].value for name in names))
    package = package_conversion.export(
        values.checkpoint, values.output.rstrip("/"), options, base
    )
    print("Wrote %s:" % package.path)
    print("\n".join(package_report.format_summary(package)))


def info(values, packages):
    """Prints a summary of one package, or a table of several.

    They show task, adapter size, trained parameters, bytes, dev scores and base model.
    """
    problems = _show(packages, values.json, is_table=len(packages) > 1)
    if problems:
        raise UserError(*problems.values())


def list_packages(values, folders):
    """Prints a table of all packages in folders, and in folders below them.

    A line for each adapter of another library, and each damaged package, follows.
    """
    for folder in folders:
        if not tf.io.gfile.isdir(folder):
            raise UserError("%s is not a folder" % folder)
    found = [each for path in folders for each in adapter_package.find_packages(path)]
    if not found:
        raise UserError(
            "there is no adapter package in %s: give a folder above packages, such as "
            "the one of all runs" % ", ".join(folders)
        )
    problems = _show(found, values.json, is_table=True)
    if problems and not values.json:
        print("\n".join(problems.values()))


def _show(folders, as_json, is_table):
    """Prints packages; returns the problems of the others by folder."""
    found, problems = [], {}
    for folder in folders:
        try:
            command_line.check_utf_8(folder, folder)
        except UserError as error:
            problems[folder] = str(error)
            continue
        try:
            found.append(adapter_package.read(folder))
        except UserError as error:
            problems[folder] = libraries.describe_folder(folder) or str(error)
    if as_json:
        entries = [
            {"path": each.path, "bytes": each.file_bytes, "config": each.config}
            for each in found
        ]
        entries += [{"path": each, "problem": problems[each]} for each in problems]
        print(files.format_json(entries), end="")
    elif found:
        lines = package_report.format_summary(found[0])
        if is_table:
            lines = package_report.format_table(found)
        print("\n".join(lines))
    return problems


def card(values, packages):
    """Writes the license of packages into them, and their model cards again.

    Further scores of the run keep the license; a further training run drops it.
    """
    for folder in packages:
        adapter_package.add_license(adapter_package.read(folder), values.license)


def verify(values, packages):
    """Prints for each package OK, or what is damaged or differs from the base model.

    The exit status is 1 unless all are OK.
    """
    given = {}
    if values.vocab_file:
        tokenization.load_vocab(values.vocab_file)  # Raises if it is no vocabulary.
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
            print("%s: %s" % (folder, name_flags(text, values)))
    if wrong:
        raise UserError(
            "%d of %d packages are damaged or do not fit" % (wrong, len(packages))
        )


def merge(values, packages):
    """Writes base model and package as one checkpoint.

    This program and the original load it as --init_checkpoint.
    """
    if len(packages) > 1:
        raise UserError(
            "merge takes one package, given are %d: a checkpoint holds one task"
            % len(packages)
        )
    package = package_conversion.merge(
        packages[0], values.init_checkpoint, values.output
    )
    merged_flags = package.method.merged_method.flags()
    needed = ["--%s=%s" % flag for flag in merged_flags.items()]
    print(
        "Wrote %s: base model and task %s; give it as --init_checkpoint with %s"
        % (values.output, package.task, " ".join(needed))
    )


_TEXTS = {
    "checkpoint": "Checkpoint of a tuned model, of this program or the original: the "
    "path without endings, such as OUTPUT_DIR/model.ckpt-573.",
    "output": "What to write, which must not exist: the folder of a package; of merge, "
    "the path of a checkpoint without endings, such as merged/model.ckpt.",
    "task_name": "GLUE task, in upper or lower case: %s."
    % ", ".join(glue_data.GLUE_TASKS),
    "bert_config_file": "bert_config.json of the model.",
    "vocab_file": "Vocabulary of the model.",
    "do_lower_case": "Whether text is lower-cased; true without a run.json.",
    "max_seq_length": "Longest input in word pieces; 128 without a run.json.",
    "init_checkpoint": "Checkpoint of the base model: the path without endings, such "
    "as .../bert_model.ckpt.",
    "license": "License of the packages, as Hugging Face's hub names it, such as "
    "apache-2.0.",
    "json": "Print the packages' configs as a JSON list.",
}
# Flags other than paths, with their defaults.
_VALUES = {
    "task_name": (flags.DEFINE_string, None),
    "do_lower_case": (flags.DEFINE_bool, None),
    "max_seq_length": (flags.DEFINE_integer, None),
    "license": (flags.DEFINE_string, None),
    "json": (flags.DEFINE_bool, False),
}


class Command(NamedTuple):
    """A command of the program."""

    run: Callable  # takes the flags' values and the list of packages
    groups: dict[str, tuple[str, ...]]  # names of flags, by groups of the help
    packages: str = "PACKAGE [PACKAGE ...]"  # positional arguments; "" for none

    def define_flags(self, values):
        """Defines its flags in `FlagValues`; returns the groups of the help."""
        return {
            title: [_define_flag(name, values) for name in names]
            for title, names in self.groups.items()
        }


def _define_flag(name, values):
    if name == "task_config":
        return command_line.define_task_config(values)
    define = command_line.flag_definer(_TEXTS, values)
    if name in _VALUES:
        kind, default = _VALUES[name]
        return define(kind, name, default)
    is_checkpoint = name.endswith("checkpoint")
    return define(command_line.DEFINE_path, name, has_checkpoint=is_checkpoint)


_EXPORT = {
    "Required": ("checkpoint", "output"),
    "Required without a run.json beside the checkpoint": (
        *("task_name", "task_config", "bert_config_file", "vocab_file"),
    ),
    "Default: the value in run.json": ("do_lower_case", "max_seq_length"),
    "Required for checkpoints of --checkpoint_content=trained": ("init_checkpoint",),
}
_SHOW = {"Output": ("json",)}
_VERIFY = {"Required": ("init_checkpoint",), "Optional": ("vocab_file",)}
COMMANDS = {
    "export": Command(export, _EXPORT, ""),
    "info": Command(info, _SHOW),
    "list": Command(list_packages, _SHOW, "FOLDER [FOLDER ...]"),
    "card": Command(card, {"Required": ("license",)}),
    "verify": Command(verify, _VERIFY),
    "merge": Command(merge, {"Required": ("init_checkpoint", "output")}, "PACKAGE"),
}


def main(argv):
    """Runs the command after the program's name; flags and packages follow it."""
    command_line.run_with_own_flags(_run_command, argv)


def _run_command(argv, values):
    arguments = argv[1:]
    if not arguments or arguments[0] in _HELP:
        print(__doc__)
    if not arguments:
        raise UserError("no command is given: name one of %s" % ", ".join(COMMANDS))
    name = arguments[0]
    if name in _HELP:
        return
    if name not in COMMANDS:
        raise UserError(
            "unknown command %r: the first argument is one of %s%s"
            % (name, ", ".join(COMMANDS), wording.suggest(name, COMMANDS))
        )
    command, program = COMMANDS[name], "manage_adapters.py %s" % name
    groups = command.define_flags(values)
    if _HELP.intersection(arguments[1:]):
        usage = "python %s %s" % (program, command.packages)
        text = textwrap.fill(" ".join(command.run.__doc__.split()), 88)
        description = "%s [flags]\n\n%s" % (usage.rstrip(), text)
        command_line.print_help(description, groups, values)
        return
    values.set_gnu_getopt(True)
    packages = command_line.parse_flags([program, *arguments[1:]], values)
    if not command.packages:
        command_line.refuse_positional_arguments(arguments, packages)
    required = [flag.name for flag in groups.get("Required", ())]
    missing = ["--" + flag for flag in required if not values[flag].value]
    if command.packages and not packages:
        missing.insert(0, command.packages)
    if missing:
        raise UserError(
            "%s needs %s; %s --help lists all flags"
            % (name, " and ".join(missing), program)
        )
    for folder in packages:
        command_line.check_path(folder, folder)
    command.run(values, packages)


if __name__ == "__main__":
    command_line.run_program(main)
