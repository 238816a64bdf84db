"""Command lines: flags that are paths, checks, help by group, the start of a program.

Functions that check raise a `UserError` which names the flag and its value.
"""

import os
import re
import shutil
import sys
import textwrap

import tensorflow.compat.v1 as tf
from absl import app, flags

from errors import UserError, reports_user_errors
from system import console, wording

HELP_FLAGS = {"-h", "-help", "--help", "-helpshort", "--helpshort"}

flags.disclaim_key_flags()  # A flag belongs to the program that defines it.


class _PathParser(flags.ArgumentParser):
    """Marks a flag as a path; see `expand_paths`."""

    def __init__(self, has_checkpoint):
        super().__init__()
        self.has_checkpoint = has_checkpoint


class _PathListParser(flags.ListParser):
    """Marks a flag as a list of paths."""

    has_checkpoint = False


_PATH_PARSERS = (_PathParser, _PathListParser)


def DEFINE_path(name, text, flag_values, has_checkpoint=False, multiple=False):
    """Defines a flag whose value is a path; `expand_paths` expands and checks it.

    `has_checkpoint`: TensorFlow looks for a checkpoint there. `multiple`: the flag can
    be repeated, and each value is PATH or NAME=PATH.
    """
    parser, serializer = _PathParser(has_checkpoint), flags.ArgumentSerializer()
    if multiple:
        return flags.DEFINE_multi(
            parser, serializer, name, None, text, flag_values=flag_values
        )
    return flags.DEFINE(parser, name, None, text, flag_values, serializer)


def DEFINE_path_list(name, text, flag_values):
    """Defines a flag of paths that are separated by commas; see `DEFINE_path`."""
    serializer = flags.CsvListSerializer(",")
    return flags.DEFINE(_PathListParser(), name, None, text, flag_values, serializer)


def flag_definer(texts, flag_values):
    """Makes a function that defines flags, whose help is in a dict by their names.

    Its arguments: one of `flags.DEFINE_*` or of this module, the name, the default
    unless it is a path, and further ones. It returns what that function returns.
    """

    def define(kind, name, *values, **options):
        return kind(name, *values, texts[name], flag_values=flag_values, **options)

    return define


def print_help(description, groups, flag_values):
    """Prints the help of a program: each flag, by group, with its default.

    `groups` is a dict from a group's title to what `flags.DEFINE_*` returned.
    """
    width = max(40, shutil.get_terminal_size((88, 24)).columns)
    print(description)
    for title, group in groups.items():
        print("\n" + title)
        for holder in group:
            flag = flag_values[holder.name]
            default = flag.default_as_str
            given = "" if default is None else "  (default: %s)" % default.strip("'")
            print("  --%s%s" % (flag.name, given))
            text = textwrap.fill(_help_text(flag), width - 6)
            print(textwrap.indent(text, " " * 6))
    print("\nGive values with =, such as --%s=VALUE." % flag.name)


_TEXTS = {
    "adapters": "Folder of an adapter package, such as OUTPUT_DIR/adapters; once for "
    "each task. NAME=FOLDER gives the task another name than the package has. By "
    "default the package that belongs to a merged --init_checkpoint.",
    "init_checkpoint": "Checkpoint of the base model, the path without endings, such "
    "as .../bert_model.ckpt.",
    "bert_config_file": "bert_config.json of the base model.",
    "vocab_file": "vocab.txt of the base model.",
}


def define_package_flags(flag_values):
    """Defines the flags of adapter packages and their base model."""
    adapters = DEFINE_path("adapters", _TEXTS["adapters"], flag_values, multiple=True)
    return adapters, *define_base_flags(flag_values)


def define_base_flags(flag_values):
    """Defines the flags of a base model, in the order of `base_model.BaseFiles`."""
    define = flag_definer(_TEXTS, flag_values)
    return (
        define(DEFINE_path, "init_checkpoint", has_checkpoint=True),
        define(DEFINE_path, "bert_config_file"),
        define(DEFINE_path, "vocab_file"),
    )


def define_task_config(flag_values):
    """Defines `--task_config`."""
    about = "Instead of --task_name: JSON file that describes a task of your own."
    return DEFINE_path("task_config", about, flag_values)


def define_task_configs(flag_values):
    """Defines `--task_config` of programs that take several packages."""
    about = (
        "JSON file that describes the task of a package which does not name the "
        "columns of its texts itself; once for each such task."
    )
    return DEFINE_path("task_config", about, flag_values, multiple=True)


def refuse_positional_arguments(argv, arguments):
    """Refuses the positional arguments of a command line, if there are any."""
    for argument in arguments:
        before = argv[argv.index(argument) - 1]
        is_flag = before.startswith("-") and "=" not in before
        example = "%s=%s" % (before, argument) if is_flag else "--FLAG=VALUE"
        raise UserError(
            "%r is not a flag: give values with =, such as %s" % (argument, example)
        )


def check_required(flag_values, names):
    """Refuses a command line in which flags of `names` are missing; names them all."""
    texts = [
        "--%s is required: %s" % (name, _help_text(flag_values[name]))
        for name in names
        if not flag_values[name].value
    ]
    if texts:
        raise UserError(*texts)


def check_local(flag_values, name):
    """Refuses a flag's folder in a bucket, for a program that downloads files."""
    path = flag_values[name].value
    if path and "://" in path:
        raise UserError(
            "--%s=%s: files are downloaded to a local folder; give one" % (name, path)
        )


def _help_text(flag):
    """The help of a flag, with what absl adds to it as a sentence."""
    return re.sub(r"\.?;\s+repeat this option(.*)", r". Repeat the flag\1.", flag.help)


def check_utf_8(what, text):
    """Refuses text that is not UTF-8, the only encoding that TensorFlow takes.

    Other bytes are lone surrogates in it. `what` names it in the message.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        remedy = "rename the file"
        if (encoding := sys.getfilesystemencoding()) != "utf-8":
            text = "Python reads names as %s: set PYTHONUTF8=1, or %s"
            remedy = text % (encoding, remedy)
        raise UserError(
            "%s is not UTF-8, as all text and all names of files must be: %s"
            % (what, remedy)
        ) from None


def _expand(name, path):
    """Replaces `~` and `$NAME` in a flag's PATH or NAME=PATH, as a shell does."""
    parts = [os.path.expanduser(part) for part in path.partition("=")]
    if any(part == "~" or part.startswith("~/") for part in parts):
        raise UserError(
            "--%s=%s: the home directory is not known: set HOME, or give a full path"
            % (name, path)
        )
    return os.path.expandvars("".join(parts))


def check_no_pattern(what, path):
    """Refuses a checkpoint's path with characters that TensorFlow takes for a pattern.

    It finds the files of a checkpoint, also to delete them, by a pattern with the path.
    `what` names the path in the message.
    """
    found = re.search(r"[*?\[\\]", path)
    if found:
        raise UserError(
            "%s has the character %s, which TensorFlow takes for a pattern in the path "
            "of a checkpoint: give a path without it" % (what, found.group())
        )


def check_path(what, path):
    """Refuses PATH or NAME=PATH that is not UTF-8, or in an unreachable bucket.

    `what` names it in the message.
    """
    check_utf_8(what, path)
    address = re.search(r"(^|=)(\w+://.*)", path)
    if not address:
        return
    try:
        tf.io.gfile.exists(address.group(2))
    except tf.errors.OpError as error:
        raise UserError(
            "%s cannot be reached (%s)" % (what, " ".join(error.message.split()))
        ) from None


def expand_paths(flag_values):
    """Expands `~` and `$NAME` in the paths of a program's flags, and checks them.

    A shell does not expand `~` after "=". Empty paths are refused; see also
    `check_path` and `check_no_pattern`.
    """
    for name in flag_values:
        flag = flag_values[name]
        if not isinstance(flag.parser, _PATH_PARSERS) or not flag.present:
            continue
        paths = flag.value if isinstance(flag.value, list) else [flag.value]
        if not paths or not all(paths):
            raise UserError(
                "--%s is empty, as from a variable of the shell that is not set: give "
                "a path, or leave the flag out" % name
            )
        paths = [_expand(name, path) for path in paths]
        flag.value = paths if isinstance(flag.value, list) else paths[0]
        for path in paths:
            what = "--%s=%s" % (name, path)
            check_path(what, path)
            if flag.parser.has_checkpoint:
                check_no_pattern(what, path)


def parse_flags(arguments, flag_values):
    """Parses the flags of a command line, and expands their paths.

    `arguments` begins with the name of the program, with that of its command if it has
    commands. Returns the positional arguments after it, a list.
    """
    for argument in arguments[1:]:
        check_utf_8(argument, argument)
    try:
        positional = flag_values(arguments)[1:]
    except flags.Error as error:
        problem, program = str(error), os.path.basename(arguments[0])
        if isinstance(error, flags.UnrecognizedFlagError):
            name = "--" + error.flagname
            known = ["--" + each for each in flag_values]
            problem = "unknown flag %s%s" % (name, wording.suggest(name, known))
        text = "%s; %s --help lists all flags"
        raise UserError(text % (problem, program)) from None
    expand_paths(flag_values)
    return positional


def make_parser(description, groups, flag_values):
    """Makes the parser of a program's command line, for `app.run`.

    The parser prints the help and exits with 0, or parses the flags, refuses positional
    arguments, and returns the program's name in a list. The arguments are those of
    `print_help`.
    """

    @reports_user_errors(flag_values)
    def parse(argv):
        if HELP_FLAGS.intersection(argv[1:]):
            print_help(description, groups, flag_values)
            print("--verbosity=1 prints the whole log.")
            print("--helpfull lists the flags of the libraries too.")
            sys.exit(0)
        refuse_positional_arguments(argv, parse_flags(argv, flag_values))
        return argv[:1]

    return parse


def run_with_own_flags(run, argv):
    """Runs `run(argv, values)`, which defines its flags in empty `FlagValues`.

    Wrong input is one message, see `reports_user_errors`. Returns the exit status.
    """
    values = flags.FlagValues()
    with reports_user_errors(values):
        console.start()
        return run(argv, values)


def run_program(main, description="", groups=None, flag_values=None):
    """Runs a program on its command line, with its messages, and exits.

    `main` is a function of `argv` that returns the exit status, or None for 0. Without
    `groups` it parses `argv`, and sets up messages, itself. See `print_help` for the
    other arguments.
    """

    def start(argv):
        with reports_user_errors(flag_values):
            console.start(flag_values.verbosity)
            return main(argv)

    console.protect_standard_streams()
    tf.logging.set_verbosity(tf.logging.ERROR)  # The next line logs a warning.
    tf.disable_v2_behavior()
    if groups is None:
        sys.exit(main(sys.argv))
    app.run(start, flags_parser=make_parser(description, groups, flag_values))
