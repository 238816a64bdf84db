"""What the documents say: commands run, flags, links and files exist.

The commands of a document are run as a newcomer runs them, one after the other in one
folder, on a small made-up encoder and made-up rows. The shell reads them, with
recorders in the place of programs; then each program is run in this process. A command
that cannot be run here stands under a comment that says what it needs or who runs it.
"""

import argparse
import contextlib
import copy
import glob
import importlib
import io
import os
import re
import shutil
import sys
from unittest import mock

import adapterhub_layout
import hf_layout
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from absl import flags
from tensorflow.python.eager import context

import command_line
import manage_adapters
import run_classifier
from exchange import conversion
from experiments.catalogue import EXPERIMENTS
from glue_data import GLUE_TASKS
from inputs import submission_file
from tests import small_packages, small_run
from tests.document_reading import PROGRAMS, anchors, blocks, calls, read
from tests.places import GLUE, ROOT
from tests.small_packages import Task
from weights import adapter_package

README = "README.md"
DOCUMENTS = [
    README,
    "RESULTS.md",
    *sorted(os.path.relpath(p, ROOT) for p in glob.glob(str(ROOT / "docs" / "*.md"))),
    "benchmarks/README.md",
    "sample_data/README.md",
    "CHANGELOG.md",
]
README_BYTES = 10_000
LANGUAGES = {"bash", "python", "text", "bibtex", "json"}

# What a comment above a block can say that it needs, because no machine here has it.
NEEDS = {
    "the network",
    "several GPUs",
    "several machines",
    "a TPU",
    "PyTorch and adapters",
    "a quiet machine",
    "hours",
}

# Flags in the text that are of other programs.
FOREIGN_FLAGS = {"--signal", "--help", "--verbosity"}

# Instead of what a document says, so that a run takes seconds.
SHORT = {
    "benchmarks.step": {
        "config": "demo_work/minilm_checkpoint/bert_config.json",
        "seq_length": "8",
        "seconds": "0.1",
        "shards": "1",
    },
    "run_classifier": {"num_train_epochs": "2"},
}


# --- flags ---------------------------------------------------------------------


def flag_values(program, command=None):
    """The flags of a program, and the groups of its help; none is given a value."""
    module = importlib.import_module(program)
    values = flags.FlagValues()
    if module is run_classifier:
        groups = module.FLAG_GROUPS
        for holder in (each for group in groups.values() for each in group):
            values[holder.name] = copy.deepcopy(flags.FLAGS[holder.name])
    elif module is manage_adapters:
        groups = module.COMMANDS[command].define_flags(values)
        values.set_gnu_getopt(True)
        return values, groups
    else:
        groups = module.define_flags(values)
    flags.DEFINE_integer("verbosity", 0, "As absl has it.", flag_values=values)
    return values, groups


def parsed(program, arguments):
    """The flags of a command line; raises what is wrong with it.

    Args:
      program: one of `PROGRAMS`.
      arguments: its words; of `manage_adapters` the command first, of
        `reproduce_paper` the experiment.
    """
    command = arguments[0] if program == "manage_adapters" else None
    values, _ = flag_values(program, command)
    if program == "reproduce_paper":
        name, *arguments = arguments
        assert name in EXPERIMENTS
    words = values([program, *arguments])[1:]
    if command is None and words:
        raise ValueError("%r is no flag" % words[0])
    return values


# --- running commands -----------------------------------------------------------


def shortened(call):
    """The arguments of a call, with what takes long replaced."""
    arguments = []
    short = dict(SHORT.get(call.program, {}))
    for word in call.arguments:
        name = word.partition("=")[0][2:]
        # A small training has fewer steps.
        folder = re.fullmatch(r"--checkpoint=(output/.*)/model\.ckpt-\d+", word)
        if folder:
            word = "--checkpoint=" + tf.train.latest_checkpoint(folder.group(1))
        arguments.append("--%s=%s" % (name, short.pop(name)) if name in short else word)
    if "--help" not in arguments:
        arguments += ["--%s=%s" % item for item in short.items()]
    return arguments


def run_program(call):
    """Runs a program of the project in this process; returns its exit status."""
    program, arguments = call.program, shortened(call)
    module = importlib.import_module(program)
    if program in ("manage_adapters", "reproduce_paper"):
        return module.main([program, *arguments])
    values, groups = flag_values(program)
    if "--help" in arguments:
        parser = command_line.flags_parser(module.__doc__, groups, values)
        with pytest.raises(SystemExit) as ended:
            parser([program, *arguments])
        return ended.value.code
    values([program, *arguments])
    tf.reset_default_graph()
    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(flags, "FLAGS", values))
        if hasattr(module, "FLAGS"):
            patches.enter_context(mock.patch.object(module, "FLAGS", values))
        return module.main([program])


def check_installation(call):
    """Checks a command of pip, pytest, ruff or venv: the files that it names."""
    words = list(call.words[1:])
    tool = os.path.basename(call.words[0])
    if words[:1] == ["-m"]:
        tool, words = words[1], words[2:]
    parser = argparse.ArgumentParser(exit_on_error=False)
    if tool == "pip":
        assert words.pop(0) == "install"
        parser.add_argument("-r", action="append", default=[], dest="paths")
    elif tool in ("pytest", "test.sh"):
        parser.add_argument("-k")
        parser.add_argument("paths", nargs="*")
    elif tool == "ruff":
        assert words.pop(0) in ("check", "format")
        parser.add_argument("paths", nargs="+")
    elif tool == "venv":
        return
    else:
        known = ("demo.sh", "run", "saved_model_cli")
        assert tool in known, "neither a program of the project nor a known tool"
        return
    for path in parser.parse_args(words).paths:
        assert (ROOT / path).exists(), path


def check_marker(block, block_calls):
    """Refuses a reason that is none, or a script that does not run the block."""
    kind, _, reason = block.marker.partition(": ")
    if kind == "needs":
        assert reason in NEEDS, "allowed are %s" % ", ".join(sorted(NEEDS))
        return
    assert kind == "run by", "begin with needs: or run by:"
    script = (ROOT / reason).read_text()
    for call in block_calls:
        words = call.words
        name = os.path.basename(words[0])
        if name == "python":
            what = " ".join(words[1:3]) if words[1] == "-m" else words[1]
        else:
            what = words[0] if words[0][0] == "." else name
        assert what in script or what == reason, "%s does not run it" % reason


def check_call(call, is_run):
    """Checks a command; with `is_run` runs it too."""
    if call.program:
        if "--help" not in call.arguments:
            parsed(call.program, call.arguments)
        status = run_program(call) if is_run else 0
        assert not status, "it ended with status %s" % status
    else:
        check_installation(call)
        assert not is_run, "say what it needs, or who runs it"


@contextlib.contextmanager
def standard_streams(stdin):
    """Gives standard input these bytes, and keeps what is written elsewhere."""
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    reader = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
        mock.patch.object(sys, "stdin", reader),
    ):
        yield output


@contextlib.contextmanager
def told(problems, place, stdin=b""):
    """Adds what is raised within to a list, with its place and what was printed."""
    with standard_streams(stdin) as output:
        try:
            yield
            return
        # A program ends with SystemExit.
        except (Exception, SystemExit) as error:
            output.flush()
            said = output.buffer.getvalue().decode("utf-8")[-1500:]
            what = "%s: %s" % (type(error).__name__, error)
            problems.append("%s\n  %s\n%s" % (place, what, said))


def follow(document, folder, text=None):
    """Does all that a document says; what goes wrong, a list of texts."""
    problems = []
    found, _ = blocks(document, text)
    by_shell = [block for block in found if block.language == "bash"]
    in_order = {}
    with told(problems, document):
        for call in calls(by_shell, folder):
            in_order.setdefault(call.block.line, []).append(call)
    back = os.getcwd()
    os.chdir(folder)
    try:
        for block in found:
            block_calls = in_order.get(block.line, [])
            if block.marker:
                with told(problems, block.place):
                    check_marker(block, block_calls)
            for call in block_calls:
                if call.program == "glue_submission":
                    write_submissions(folder)
                with told(problems, call.place, call.stdin):
                    check_call(call, not block.marker)
            if block.language == "python":
                with told(problems, block.place), context.eager_mode():
                    code = compile(block.text, block.place, "exec")
                    if not block.marker:
                        exec(code, {})
    finally:
        os.chdir(back)
    return problems


# --- the newcomer's folder ------------------------------------------------------


def write_data(folder):
    """Made-up rows of all tasks, enough of them for a batch."""
    for task in GLUE_TASKS.values():
        shutil.copytree(GLUE / task.title, folder / task.title)
        if task.train:
            path = folder / task.title / task.train.filename
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            begin = int(task.train.has_header)
            text = "".join(lines[:begin] + 8 * lines[begin:])
            path.write_text(text, encoding="utf-8")


def write_submissions(folder):
    """What full test sets of all tasks would leave."""
    for task in GLUE_TASKS.values():
        output = folder / "output" / (task.model_of or task.name)
        output.mkdir(exist_ok=True)
        for split in task.test:
            answers = np.zeros(split.rows, np.float64 if task.is_regression else int)
            path = str(output / split.submission_file)
            submission_file.write_submission(task, split, answers, path)


def prepare(folder):
    """What a newcomer has beside what the README's commands make."""
    for name in ("tests", "benchmarks", "sample_data", "requirements.txt"):
        os.symlink(ROOT / name, folder / name)
    shutil.copytree(ROOT / "results", folder / "results")
    (folder / "demo_work").mkdir()
    (folder / "output").mkdir()
    write_data(folder / "glue_data")
    tokens = small_run.VOCABULARY
    sizes = {"vocab_size": len(tokens), "max_position_embeddings": 128}
    config = dict(hf_layout.CONFIG, num_hidden_layers=1, **sizes)
    encoder = folder / "demo_work" / "minilm"
    hf_layout.write_encoder(encoder, config, hf_layout.random_weights(config), tokens)
    checkpoint = folder / "demo_work" / "minilm_checkpoint"
    conversion.convert(str(encoder), str(checkpoint))
    base = {
        "init_checkpoint": str(checkpoint / "bert_model.ckpt"),
        "bert_config_file": str(checkpoint / "bert_config.json"),
        "vocab_file": str(checkpoint / "vocab.txt"),
    }
    for name, path in (("sst-2", "demo_work/tuned"), ("cola", "output/cola")):
        (folder / path).mkdir()
        package = folder / path / "adapters"
        small_packages.write_package(package, base, Task(name, 64, ("0", "1")))
    adapterhub_layout.write_adapter(
        folder / "saved_adapter",
        weights=adapterhub_layout.random_adapter(sizes={0: adapterhub_layout.SIZE}),
        head_config=adapterhub_layout.changed(
            adapterhub_layout.HEAD_CONFIG, num_labels=2, label2id={"x": 0, "y": 1}
        ),
        head_weights=adapterhub_layout.random_head(2),
    )


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """A folder in which the README's commands were followed, and what went wrong."""
    folder = tmp_path_factory.mktemp("newcomer")
    prepare(folder)
    return folder, follow(README, folder)


def test_the_readme_can_be_followed(newcomer):
    folder, problems = newcomer
    assert not problems, "\n".join(problems)
    assert (folder / "output" / "mrpc" / "adapters").is_dir()


@pytest.mark.parametrize("document", DOCUMENTS[1:])
def test_a_document_can_be_followed(document, newcomer, tmp_path):
    folder = tmp_path / "newcomer"
    shutil.copytree(newcomer[0], folder, symlinks=True)
    problems = follow(document, folder)
    assert not problems, "\n".join(problems)


# --- what a reader follows by eye -----------------------------------------------


def test_the_readme_is_short():
    assert len(read(README).encode("utf-8")) <= README_BYTES


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    _, prose = blocks(document)
    text = "\n".join(line for _, line in prose)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        path = os.path.normpath(os.path.join(os.path.dirname(document), path))
        path = path if target[0] != "#" else document
        assert (ROOT / path).exists(), target
        assert not anchor or anchor in anchors(path), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_stands_in_a_block_that_is_checked(document):
    found, prose = blocks(document)
    for block in found:
        assert block.language in LANGUAGES, block.place
        if block.language == "text":
            assert not re.search(r"^(\$ )?(python|\./)", block.text, re.M), block.place
    for number, line in prose:
        assert not line.startswith("    "), "%s:%d: indented" % (document, number)


def inline_code(document):
    _, prose = blocks(document)
    return re.findall(r"`([^`]+)`", "\n".join(line for _, line in prose))


@pytest.fixture(scope="module")
def known_flags():
    """Dict from a flag to the `FlagValues` of the programs that have it."""
    programs = [(name, None) for name in PROGRAMS if name != "manage_adapters"]
    programs += [("manage_adapters", command) for command in manage_adapters.COMMANDS]
    known = {}
    for program, command in programs:
        values, _ = flag_values(program, command)
        for name in values:
            known.setdefault("--" + name, []).append(values)
    return known


@pytest.mark.parametrize("document", DOCUMENTS)
def test_flags_in_the_text_are_those_of_programs(document, known_flags):
    for code in inline_code(document):
        for flag, value in re.findall(r"(--[a-z]\w*)(?:=([\w.-]+))?", code):
            if flag in FOREIGN_FLAGS:
                continue
            assert flag in known_flags, code
            # K, NAME and the like stand for a value.
            if value and not value.isupper():
                takes = False
                for values in known_flags[flag]:
                    with contextlib.suppress(flags.IllegalFlagValueError):
                        values([document, "%s=%s" % (flag, value)])
                        takes = True
                assert takes, code


@pytest.mark.parametrize("document", DOCUMENTS)
def test_modules_in_the_text_are_there(document):
    found = re.findall(r"[\w./]+\.(?:py|sh)\b", read(document))
    found += [code for code in inline_code(document) if re.fullmatch(r"\w+/", code)]
    # Of a run, of a SavedModel, and of every room.
    elsewhere = {"adapters/", "best/", "eval/", "assets/", "__init__.py"}
    missing = {
        path for path in found if path not in elsewhere and not (ROOT / path).exists()
    }
    assert not missing


def test_the_table_of_flags_is_that_of_the_program():
    text = read("docs/training.md").partition("## Flags")[2].partition("## ")[0]
    rows = "".join(line for line in text.splitlines() if line.startswith("| "))
    groups = run_classifier.FLAG_GROUPS.values()
    defined = ["--" + holder.name for group in groups for holder in group]
    assert sorted(re.findall(r"`(--\w+)`", rows)) == sorted(defined)


def test_the_change_log_tells_of_this_version():
    headings = re.findall(r"^## (.*)$", read("CHANGELOG.md"), re.M)
    assert headings[0] == adapter_package.VERSION


# --- that this finds what is wrong ----------------------------------------------

BASE = "--init_checkpoint=x --bert_config_file=x --vocab_file=x"


@pytest.mark.parametrize(
    ("marker", "language", "text", "reason"),
    [
        ("", "bash", "python predict.py --adapter=x", "Unknown command line flag"),
        ("", "bash", "python glue_data.py MRPC", "'MRPC' is no flag"),
        ("", "bash", "python manage_adapters.py info --jsn", "Unknown"),
        ("", "bash", "python no_program.py", "neither a program"),
        ("", "bash", "no_program", "command not found"),
        ("", "bash", "echo $UNSET", "unbound variable"),
        (
            "",
            "bash",
            "python predict.py --adapters=x %s" % BASE,
            "give the bert_config",
        ),
        ("", "bash", "./test.sh", "say what it needs"),
        ("", "python", "from serving import predictr", "ImportError"),
        ("needs: luck", "bash", "python glue_data.py", "allowed are"),
        ("needs: a TPU", "bash", "python run_classifier.py --use_tpu=8", "use_tpu"),
        ("needs: a TPU", "bash", "pip install -r no-file.txt", "no-file.txt"),
        ("needs: a TPU", "python", "1 +", "SyntaxError"),
        ("run by: demo.sh", "bash", "python predict.py", "demo.sh does not run it"),
        ("run by: .ci/run", "bash", "./test.sh tests/no_test.py", "no_test.py"),
    ],
)
def test_what_is_wrong_is_found(marker, language, text, reason, tmp_path):
    fenced = "<!-- %s -->\n```%s\n%s\n```\n" % (marker, language, text)
    problems = follow("made-up.md", tmp_path, fenced)
    assert reason in "\n".join(problems)
