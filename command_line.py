"""What the command line of a program with many flags needs: help by group."""

import shutil
import sys
import textwrap

from absl import app

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
            print("--helpfull lists the flags of the libraries too.")
            sys.exit(0)
        return app.parse_flags_with_usage(argv)

    return parse
