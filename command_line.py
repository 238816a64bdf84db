"""What the command line of a program with many flags needs: help by group."""

import shutil
import sys
import textwrap

from absl import app, flags

from errors import UserError

_HELP_FLAGS = {"-h", "-help", "--help", "-helpshort", "--helpshort"}


def help_text(description, groups, flag_values, width):
    """Every flag, by group, with its default.

    Args:
      description: text that stands first.
      groups: dict from a group's title to what `flags.DEFINE_*` returned.
      flag_values: the `FlagValues` that they were defined in.
      width: columns to fill.

    Returns:
      The text, with a line end.
    """
    lines = [description]
    for title, group in groups.items():
        lines += ["", title]
        for holder in group:
            flag = flag_values[holder.name]
            default = flag.default_as_str
            given = "" if default is None else "  (default: %s)" % default.strip("'")
            lines.append("  --%s%s" % (flag.name, given))
            lines += textwrap.wrap(
                flag.help, width, initial_indent=" " * 6, subsequent_indent=" " * 6
            )
    lines += ["", "Give values with =, such as --%s=VALUE." % flag.name]
    return "\n".join(lines) + "\n"


def base_and_package_flags(flag_values):
    """Defines the flags of programs that run adapter packages on their base.

    Args:
      flag_values: the `FlagValues` to define them in.

    Returns:
      Tuple of what `flags.DEFINE_*` returned.
    """

    def string(name, text):
        return flags.DEFINE_string(name, None, text, flag_values=flag_values)

    return (
        flags.DEFINE_multi_string(
            "adapters",
            None,
            "Folder of an adapter package, such as OUTPUT_DIR/adapters; once for each "
            "task. NAME=FOLDER calls its task otherwise than the package.",
            flag_values=flag_values,
        ),
        string(
            "init_checkpoint",
            "Checkpoint of the base that they were trained on, without file endings.",
        ),
        string("bert_config_file", "bert_config.json of the base."),
        string("vocab_file", "vocab.txt of the base."),
    )


def refuse_words(argv, example):
    """Refuses words that are no flags.

    Args:
      argv: what the parser left, the program's name first.
      example: a flag with its value, for the message.

    Raises:
      UserError: there is such a word.
    """
    if argv[1:]:
        raise UserError(
            "%r is no flag: give values with =, such as %s" % (argv[1], example)
        )


def check_required(flag_values, names):
    """Refuses a command line without flags that are needed.

    Args:
      flag_values: the program's `FlagValues`.
      names: names of the flags.

    Raises:
      UserError: naming the first that is missing, with its help.
    """
    for name in names:
        if not flag_values[name].value:
            raise UserError("--%s is required: %s" % (name, flag_values[name].help))


def flags_parser(description, groups, flag_values):
    """For `app.run`: parses the command line, or prints the help and ends with 0.

    Args:
      description: see `help_text`.
      groups: see `help_text`.
      flag_values: see `help_text`.

    Returns:
      A function from a list of arguments, the program's name first, to the list of
      those that are no flags.
    """

    def parse(argv):
        if _HELP_FLAGS.intersection(argv[1:]):
            width = max(40, shutil.get_terminal_size((88, 24)).columns)
            print(help_text(description, groups, flag_values, width), end="")
            print("--verbosity=1 shows all that is logged, not what matters alone;")
            print("--helpfull lists the flags of the libraries too.")
            sys.exit(0)
        return app.parse_flags_with_usage(argv)

    return parse
