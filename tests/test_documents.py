"""What the documents name exists: programs, flags and their values, files, links."""

import ast
import copy
import importlib
import os
import re
import shlex
import unicodedata

import pytest
from absl import flags

import manage_adapters
import run_classifier
from experiments.catalogue import EXPERIMENTS
from inputs import encoder_fetch
from tests.places import ROOT
from weights import adapter_package

DOCUMENTS = [
    "README.md",
    "RESULTS.md",
    "CHANGELOG.md",
    *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md")),
    "benchmarks/README.md",
    "sample_data/README.md",
]
PROGRAMS = [
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for path in sorted([*ROOT.glob("*.py"), *ROOT.glob("benchmarks/*.py")])
    if "command_line.run_program(" in path.read_text(encoding="utf-8")
]
# Flags in the text that are of other programs.
FOREIGN_FLAGS = {"--signal", "--help", "--verbosity"}
# Folders of a run or of a SavedModel.
MADE_FOLDERS = {"adapters/", "best/", "eval/", "assets/"}


def read(document):
    return (ROOT / document).read_text(encoding="utf-8")


def split_blocks(document):
    """The fenced blocks, as pairs of language and text, and the text around them."""
    parts = re.split(r"^```(.*)\n", read(document), flags=re.M)
    return list(zip(parts[1::4], parts[2::4])), "".join(parts[::4])


def inline_code(document):
    return re.findall(r"`([^`]+)`", split_blocks(document)[1])


# --- commands -------------------------------------------------------------------


def find_commands(document):
    """The commands in the document's shell blocks, as lists of words."""
    variables = {}
    for language, text in split_blocks(document)[0]:
        if language != "bash":
            continue
        text = re.sub(r"<<'(\w+)'\n.*?^\1$", "", text, flags=re.M | re.S)
        for line in text.replace("\\\n", " ").splitlines():
            for name, value in variables.items():
                line = line.replace("$" + name, value)
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&")
            lexer.whitespace_split = True
            command = []
            for word in [*lexer, ";"]:
                if set(word) <= set("|;&"):
                    if command:
                        yield command
                    command = []
                elif not command and re.match(r"[A-Z_]+=", word):
                    name, _, value = word.partition("=")
                    variables[name] = value
                else:
                    command.append(word)


def program_flags(program, command=None):
    """A `FlagValues` with the flags of a program, or of a command of it."""
    values = flags.FlagValues()
    if program in ("run_classifier", "run_squad"):
        module = importlib.import_module(program)
        for group in module.FLAG_GROUPS.values():
            for holder in group:
                values[holder.name] = copy.deepcopy(module.FLAGS[holder.name])
    elif program == "manage_adapters":
        manage_adapters.COMMANDS[command].define_flags(values)
        values.set_gnu_getopt(True)
        return values
    else:
        importlib.import_module(program).define_flags(values)
    flags.DEFINE_integer("verbosity", 0, "As absl has it.", flag_values=values)
    return values


def check_program(program, arguments):
    """Parses the command line of a program of the project."""
    command = None
    if program in ("manage_adapters", "reproduce_paper"):
        command, *arguments = arguments
    if program == "reproduce_paper":
        assert command in EXPERIMENTS
    if program == "fetch_encoder":
        name, *arguments = arguments
        assert name in encoder_fetch.ENCODERS
    if "--help" in arguments:
        return
    words = program_flags(program, command)([program, *arguments])[1:]
    assert program == "manage_adapters" or not words, words


def check_command(words):
    """Checks that a command's program, flags and files exist."""
    tool, arguments = os.path.basename(words[0]), words[1:]
    if tool.startswith("python"):
        is_module = arguments[0] == "-m"
        name = arguments[is_module].removesuffix(".py")
        if name in PROGRAMS:
            return check_program(name, arguments[is_module + 1 :])
        assert is_module and name in ("pip", "pytest", "ruff", "venv"), words
        tool, arguments = name, arguments[2:]
    elif words[0].startswith((".ci/", "./")):
        assert (ROOT / words[0]).exists(), words
    if tool in ("pip", "pytest", "test.sh"):
        for word in arguments:
            if re.search(r"[/.]", word):
                assert list(ROOT.glob(word)), word
    return None


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_are_those_of_the_programs(document):
    for words in find_commands(document):
        check_command(words)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_examples_in_python_import_what_exists(document):
    for language, text in split_blocks(document)[0]:
        if language != "python":
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    if not hasattr(module, alias.name):
                        importlib.import_module("%s.%s" % (node.module, alias.name))


# --- text -----------------------------------------------------------------------


def heading_anchors(document):
    """The anchors that GitHub gives to the document's headings."""
    for heading in re.findall(r"^#+ (.*)", split_blocks(document)[1], re.M):
        text = re.sub(r"[`*]", "", heading).strip().lower()
        kept = (c for c in text if c in "-_ " or unicodedata.category(c)[0] in "LN")
        yield "".join(kept).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)]+)\)", split_blocks(document)[1]):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        path = os.path.join(os.path.dirname(document), path) if path else document
        path = os.path.normpath(path)
        assert (ROOT / path).exists(), target
        assert not anchor or anchor in heading_anchors(path), target


@pytest.fixture(scope="module")
def known_flags():
    """Dict from a flag to the `FlagValues` of the programs that have it."""
    programs = [(name, None) for name in PROGRAMS if name != "manage_adapters"]
    programs += [("manage_adapters", command) for command in manage_adapters.COMMANDS]
    known = {}
    for program, command in programs:
        values = program_flags(program, command)
        for name in values:
            known.setdefault("--" + name, []).append(values)
    return known


def accepts(values, word):
    try:
        values(["program", word])
    except flags.IllegalFlagValueError:
        return False
    return True


@pytest.mark.parametrize("document", DOCUMENTS)
def test_flags_in_the_text_are_those_of_programs(document, known_flags):
    for code in inline_code(document):
        for flag, value in re.findall(r"(--[a-z]\w*)(?:=([\w.-]+))?", code):
            if flag in FOREIGN_FLAGS:
                continue
            assert flag in known_flags, code
            # Upper case, such as NAME, stands for a value.
            if value and not value.isupper():
                word = "%s=%s" % (flag, value)
                assert any(accepts(each, word) for each in known_flags[flag]), code


@pytest.mark.parametrize("document", DOCUMENTS)
def test_modules_and_folders_in_the_text_exist(document):
    found = set(re.findall(r"[\w./]+\.(?:py|sh)\b", read(document)))
    found |= {code for code in inline_code(document) if re.fullmatch(r"\w+/", code)}
    found -= {"__init__.py", *MADE_FOLDERS}
    assert not [path for path in found if not (ROOT / path).exists()]


def test_the_table_of_flags_is_complete():
    text = read("docs/training.md").partition("## Flags")[2].partition("## ")[0]
    rows = "".join(line for line in text.splitlines() if line.startswith("| "))
    groups = run_classifier.FLAG_GROUPS.values()
    defined = ["--" + holder.name for group in groups for holder in group]
    assert sorted(re.findall(r"`(--\w+)`", rows)) == sorted(defined)


def test_the_change_log_has_this_version():
    newest = re.search(r"^## (\S+)( \(unreleased\))?$", read("CHANGELOG.md"), re.M)
    assert newest[1] + (".dev0" if newest[2] else "") == adapter_package.VERSION
