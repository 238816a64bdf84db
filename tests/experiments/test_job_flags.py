"""Command lines of jobs, and results that other settings gave."""

import json
import os
import sys

import pytest

import run_classifier
import run_squad
from errors import UserError
from experiments import datasets, job_flags, results
from experiments.catalogue import EXPERIMENTS
from experiments.grid import Job
from tests import small_run
from tests.made_up_results import make_study, result
from tuning import registry

JOB = Job("mrpc", "adapters", "1e-3", 5, 1, adapter_size=8, init_scale="1e-2")
BASE = {"init_checkpoint": "b.ckpt", "bert_config_file": "c", "vocab_file": "v"}
SETTINGS = job_flags.SweepSettings("work", "glue", {}, BASE)


def test_a_command_line():
    settings = SETTINGS._replace(
        task_files={"mail": "own/mail.json"},
        flags={"xla": "true", "train_batch_size": "16"},
    )
    words = job_flags.make_command(JOB._replace(task="mail"), settings)
    program = os.path.join(job_flags.PROGRAMS, "run_classifier.py")
    assert words[:2] == [sys.executable, program]
    assert {"--xla=true", "--train_batch_size=16", "--seed=1"} <= set(words)
    assert "--task_config=own/mail.json" in words
    assert not [word for word in words if "data_dir" in word or "task_name" in word]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_flags_of_jobs_are_those_of_their_programs(name):
    words = ["--task_configs=a/mail.json"] if name == "table2" else []
    study = make_study(name, "--preset=small", *words)
    settings = SETTINGS._replace(task_files={"mail": "a/mail.json"})
    for job in {job.family: job for job in study.jobs}.values():
        given = job_flags.make_flags(job, settings)
        program = {"run_classifier.py": run_classifier, "run_squad.py": run_squad}[
            datasets.find(job.task).program
        ]
        assert set(given) <= set(program.FLAGS), job.name
        tuning = {n: given.get(n) for n in ("adapter_placement", "adapter_size")}
        registry.parse(job.policy, tuning, 6)


def test_questions_are_for_their_own_program():
    settings = SETTINGS._replace(squad_dir="questions", flags={"doc_stride": "32"})
    words = job_flags.make_command(JOB._replace(task="squad_sample"), settings)
    assert os.path.basename(words[1]) == "run_squad.py"
    assert "--train_file=%s" % os.path.join("questions", "train.json") in words
    assert "--predict_file=%s" % os.path.join("questions", "dev.json") in words
    assert {"--train_batch_size=8", "--doc_stride=32", "--do_predict=true"} <= {*words}
    assert not [word for word in words if "data_dir" in word or "task" in word]


@pytest.mark.parametrize(
    "text", ["--xla='true", "\\", "xla", "--seed=1", "--vocab_file=v"]
)
def test_flags_that_are_refused(text):
    with pytest.raises(UserError, match=r"^`run_flags`"):
        job_flags.parse_run_flags(text)


def with_flags(flags):
    return SETTINGS._replace(flags={**BASE, **flags})


def made_with(settings, job=JOB):
    return result(
        0.5,
        flags=job_flags.make_flags(job, settings),
        inputs=settings.digests.get(job.task, {}),
    )


@pytest.mark.parametrize(
    ("then", "now", "named"),
    [
        (with_flags({"xla": "true"}), SETTINGS, "--xla is true there and not given"),
        (SETTINGS, with_flags({"xla": "true"}), "--xla is not given there and true"),
        (with_flags({"max_seq_length": "16"}), SETTINGS, "--max_seq_length is 16"),
        (SETTINGS._replace(glue_dir="other"), SETTINGS, "--data_dir is other"),
        (with_flags({"vocab_file": "w"}), SETTINGS, "--vocab_file is w"),
    ],
)
def test_results_of_other_settings_are_refused(then, now, named):
    with pytest.raises(UserError) as refused:
        job_flags.check_same_settings({JOB: made_with(then)}, now)
    for text in (named, JOB.name, "`work_dir`=work"):
        assert text in str(refused.value)
    failed = made_with(then)._replace(status=results.FAILED)
    job_flags.check_same_settings({JOB: failed}, now)


def test_results_of_the_same_settings_pass():
    job_flags.check_same_settings({JOB: made_with(SETTINGS)}, SETTINGS)
    moved = with_flags({"tpu_name": "b"})._replace(work_dir="elsewhere")
    without = JOB._replace(without="0")
    known = {JOB: made_with(SETTINGS), without: made_with(SETTINGS, without)}
    job_flags.check_same_settings(known, moved)
    # A report is made without the flags of the encoder.
    then = with_flags({"xla": "true"})
    bare = SETTINGS._replace(glue_dir="", flags={})
    job_flags.check_same_settings({JOB: made_with(then)}, bare)
    other = bare._replace(flags={"vocab_file": "w"})
    with pytest.raises(UserError, match="--vocab_file is v there and w now"):
        job_flags.check_same_settings({JOB: made_with(then)}, other)


def test_a_report_compares_no_paths_of_files_with_digests():
    known = {JOB: made_with(SETTINGS)._replace(inputs={"train.tsv": "ab"})}
    job_flags.check_same_settings(known, SETTINGS._replace(glue_dir="moved"))


def test_contents_of_files_count_and_not_their_places(tmp_path):
    base = small_run.write_model(tmp_path / "bert")
    flags = {name: base[name] for name in job_flags.BASE}
    small_run.write_mrpc(tmp_path / "MRPC")
    settings = job_flags.SweepSettings(str(tmp_path), str(tmp_path), {}, flags)

    def with_digests(settings):
        digests = {"mrpc": job_flags.input_digests("mrpc", settings)}
        return settings._replace(digests=digests)

    known = {JOB: made_with(with_digests(settings))}
    (tmp_path / "moved").mkdir()
    os.rename(tmp_path / "MRPC", tmp_path / "moved" / "MRPC")
    moved = settings._replace(glue_dir=str(tmp_path / "moved"))
    job_flags.check_same_settings(known, with_digests(moved))
    with open(tmp_path / "moved" / "MRPC" / "dev.tsv", "a") as writer:
        writer.write("\n")
    with pytest.raises(UserError, match=r"dev\.tsv is another file"):
        job_flags.check_same_settings(known, with_digests(moved))
    with pytest.raises(UserError, match=r"RTE/train\.tsv.*--tasks=RTE"):
        job_flags.input_digests("rte", settings)
    (tmp_path / "train-v1.1.json").write_text("{}")
    questions = settings._replace(squad_dir=str(tmp_path))
    with pytest.raises(UserError, match=r"dev-v1\.1\.json; python fetch_squad\.py"):
        job_flags.input_digests("squad", questions)
    moved.flags["init_checkpoint"] = "x.ckpt"
    with pytest.raises(UserError, match=r"no checkpoint at x\.ckpt"):
        job_flags.input_digests("mrpc", moved)
    os.remove(tmp_path / "moved" / "MRPC" / "test.tsv")
    with pytest.raises(UserError, match=r"MRPC/test\.tsv.*--tasks=MRPC"):
        job_flags.input_digests("mrpc", moved)


def test_a_task_that_jobs_cannot_predict_is_refused_first(tmp_path):
    for name in ("train", "dev"):
        rows = ["text\tlabel", "a cat\tyes", "a dog\tno"]
        (tmp_path / (name + ".tsv")).write_text("\n".join([*rows, ""]))
    record = {"name": "mail", "text_a": "text", "label": "label"}
    record.update(train="train.tsv", dev="dev.tsv")
    (tmp_path / "mail.json").write_text(json.dumps(record))
    base = small_run.write_model(tmp_path / "bert")
    flags = {name: base[name] for name in job_flags.BASE}
    task_files = {"mail": str(tmp_path / "mail.json")}
    settings = job_flags.SweepSettings(str(tmp_path), "", task_files, flags)
    with pytest.raises(UserError, match=r'mail\.json: .*"test"'):
        job_flags.input_digests("mail", settings)
