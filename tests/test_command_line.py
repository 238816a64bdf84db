"""What all command lines share."""

import re

import pytest
from absl import flags

import command_line
import convert_checkpoint
import export_saved_model
import fetch_encoder
import fetch_squad
import glue_data
import glue_submission
import manage_adapters
import predict
import reproduce_paper
import run_classifier
import run_squad
from errors import UserError

_DEFINE = {
    "convert_checkpoint": convert_checkpoint.define_flags,
    "export_saved_model": export_saved_model.define_flags,
    "fetch_encoder": fetch_encoder.define_flags,
    "fetch_squad": fetch_squad.define_flags,
    "glue_data": glue_data.define_flags,
    "glue_submission": glue_submission.define_flags,
    "predict": predict.define_flags,
    "reproduce_paper": reproduce_paper.define_flags,
    **{
        "manage_adapters " + name: command.define_flags
        for name, command in manage_adapters.COMMANDS.items()
    },
}
_PATH_NAME = re.compile(
    r"(.*_)?(dirs?|file|checkpoint|configs?|adapters|package|input|output|zip)$"
)


def parsed(program, *arguments):
    values = flags.FlagValues()
    _DEFINE[program](values)
    values(["program.py", *arguments])
    command_line.expand_paths(values)
    return values


def test_flags_that_are_named_as_paths_are_paths():
    known = [
        program.FLAGS[each.name]
        for program in (run_classifier, run_squad)
        for group in program.FLAG_GROUPS.values()
        for each in group
    ]
    for define in _DEFINE.values():
        values = flags.FlagValues()
        define(values)
        known += [values[name] for name in values]
    for flag in known:
        if _PATH_NAME.match(flag.name):
            assert isinstance(flag.parser, command_line._PATH_PARSERS), flag.name


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch")
    monkeypatch.delenv("NO_SUCH", raising=False)


@pytest.mark.parametrize(
    ("program", "flag", "given", "expected"),
    [
        ("convert_checkpoint", "output_dir", "~/x", "/home/me/x"),
        ("glue_data", "data_dir", "~", "/home/me"),
        ("fetch_encoder", "output_dir", "$HOME/x", "/home/me/x"),
        ("predict", "input", "${SCRATCH}/a.csv", "/scratch/a.csv"),
        ("predict", "output", "a~/$NO_SUCH.csv", "a~/$NO_SUCH.csv"),
        ("predict", "adapters", "m=~/x", ["m=/home/me/x"]),
        ("manage_adapters export", "checkpoint", "~/a", "/home/me/a"),
        ("glue_submission", "output_dirs", "~/a,b", ["/home/me/a", "b"]),
        ("predict", "text_a_column", "~/$HOME", "~/$HOME"),
    ],
)
def test_paths_are_expanded(home, program, flag, given, expected):
    assert parsed(program, "--%s=%s" % (flag, given))[flag].value == expected


def test_a_home_directory_that_is_not_known(monkeypatch):
    monkeypatch.setattr(command_line.os.path, "expanduser", lambda path: path)
    for value in ("~", "~/x", "name=~/x"):
        with pytest.raises(UserError, match=r"^--adapters=.*~.* HOME"):
            parsed("predict", "--adapters=" + value)


@pytest.mark.parametrize(
    ("program", "flag", "path"),
    [
        ("convert_checkpoint", "output_dir", "out/lr=[3e-4]"),
        ("predict", "init_checkpoint", "bert [v1]/model.ckpt"),
        ("manage_adapters export", "checkpoint", "a\\b/model.ckpt-1"),
        ("reproduce_paper", "work_dir", "w?rk"),
    ],
)
def test_a_checkpoint_in_a_path_that_is_a_pattern(program, flag, path):
    with pytest.raises(UserError, match=r"--%s=.* has the character [\[\\*?]," % flag):
        parsed(program, "--%s=%s" % (flag, path))


@pytest.mark.parametrize(
    ("program", "flag"),
    [("predict", "output"), ("predict", "adapters"), ("fetch_encoder", "output_dir")],
)
def test_other_paths_may_have_brackets(program, flag):
    parsed(program, "--%s=a[1]" % flag)


@pytest.mark.parametrize(
    ("program", "flag", "path"),
    [
        ("convert_checkpoint", "output_dir", "nowhere://bucket/out"),
        ("predict", "adapters", "name=nowhere://bucket/out"),
        ("glue_submission", "output_dirs", "here,nowhere://bucket/out"),
    ],
)
def test_a_bucket_that_cannot_be_reached(program, flag, path):
    with pytest.raises(UserError, match=r"--%s=.*cannot be reached \(.*nowhere" % flag):
        parsed(program, "--%s=%s" % (flag, path))


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("predict", ["--input="]),
        ("predict", ["--adapters=a", "--adapters="]),
        ("convert_checkpoint", ["--output_dir", ""]),
        ("glue_submission", ["--output_dirs=a,,b"]),
    ],
)
def test_an_empty_path(program, arguments):
    with pytest.raises(UserError, match=r"^--\w+ is empty, as from a variable of"):
        parsed(program, *arguments)


def test_bytes_that_are_not_utf_8(home, monkeypatch, capsys):
    # Python represents the byte 0xff of a command line by \udcff.
    with pytest.raises(UserError, match=r"--input=a\\udcff is not UTF-8"):
        parsed("predict", "--input=a\udcff")
    with monkeypatch.context() as patched:
        patched.setattr(command_line.sys, "getfilesystemencoding", lambda: "ascii")
        with pytest.raises(UserError, match=r"--input=gr\\udcf6\W.* PYTHONUTF8=1"):
            parsed("predict", "--input=gr\udcf6")
    monkeypatch.setenv("SCRATCH", "/scratch/\udcff")
    with pytest.raises(UserError, match=r"--zip=/scratch/\\udcff/x is not UTF-8"):
        parsed("glue_submission", "--zip=$SCRATCH/x")
    values = flags.FlagValues()
    parse = command_line.make_parser("About.", predict.define_flags(values), values)
    for run in (parse, manage_adapters.main):
        with pytest.raises(SystemExit) as ended:
            run(["program.py", "info", "--text_a_column=\udcff"])
        assert ended.value.code == 1
        message = capsys.readouterr().err
        assert message.startswith("error: --text_a_column=\\udcff is not UTF-8")


def test_all_missing_flags_are_named():
    values = flags.FlagValues()
    predict.define_flags(values)
    values(["predict.py", "--vocab_file=x"])
    with pytest.raises(UserError) as caught:
        command_line.check_required(values, ["adapters", "vocab_file", "input"])
    first, second = str(caught.value).split("\n")
    assert first.startswith("--adapters is required: Folder of an adapter package")
    assert first.endswith("Repeat the flag to specify a list of values.")
    assert second.startswith("  --input is required: File of rows")


def test_help_ends_with_whole_sentences(capsys):
    values = flags.FlagValues()
    groups = predict.define_flags(values)
    command_line.print_help("About.", groups, values)
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "a merged --init_checkpoint. Repeat the flag to specify a list of values."
        in text
    )
    assert "repeat this option" not in text


@pytest.fixture
def parse():
    """The parser of predict.py's command line, and the `FlagValues` that it fills."""
    values = flags.FlagValues()
    groups = predict.define_flags(values)
    return command_line.make_parser("About.", groups, values), values


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--output=nowhere://a.tsv"], ["--output=nowhere://a.tsv"]),
        (["MRPC"], ["'MRPC'"]),
        (["--inptu=a"], ["unknown flag --inptu (did you mean --input?); ", "--help"]),
        (["--batch_size=many"], ["--batch_size=many"]),
        (["--overwrite", "false"], ["'false'", "--overwrite=false"]),
    ],
)
def test_the_parser_reports_errors(parse, capsys, arguments, parts):
    with pytest.raises(SystemExit) as ended:
        parse[0](["predict.py", *arguments])
    assert ended.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert all(part in message for part in parts)
