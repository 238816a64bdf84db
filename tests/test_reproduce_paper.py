"""The program: its commands, its plans, its reports, and what it refuses."""

import os
import pathlib
import shlex
import shutil
from types import SimpleNamespace
from unittest import mock

import pytest
from absl import flags

import reproduce_paper
from errors import UserError
from experiments import grid, job_flags, processes, ray_launcher, results, selection
from experiments.catalogue import EXPERIMENTS
from system import console
from tests.made_up_results import make_study, result

BASE = ["--init_checkpoint=b.ckpt", "--bert_config_file=c.json", "--vocab_file=v.txt"]
SMALL = "--preset=small"
FURTHER = "--task_configs=a/mail.json,b/news.json"


def program(*words):
    return reproduce_paper.run(["reproduce_paper.py", *words], flags.FlagValues())


@pytest.fixture
def no_files(monkeypatch):
    """The files of `BASE` and of tasks are not read."""
    config = SimpleNamespace(num_hidden_layers=6)
    bert = reproduce_paper.modeling.BertConfig
    monkeypatch.setattr(bert, "from_json_file", lambda _: config)
    monkeypatch.setattr(reproduce_paper.tokenization, "FullTokenizer", lambda _: None)
    monkeypatch.setattr(job_flags, "input_digests", lambda *_: {})


@pytest.fixture
def started(monkeypatch, no_files):
    """Jobs get a made-up result at once; gives those that were started."""
    jobs = []

    class Ended:
        def __init__(self, job, settings, number):
            jobs.append(job)
            self.job, self.number = job, number

        def has_ended(self):
            return True

        def wait(self):
            return 0, "", 1.0

    def make_result(job, settings, *_):
        flags = job_flags.make_flags(job, settings)
        return result(0.6 + 0.1 * job.seed, flags=flags)

    monkeypatch.setattr(processes, "Process", Ended)
    monkeypatch.setattr(processes, "make_result", make_result)
    return jobs


def made_up_score(job):
    """A score that depends on the whole setting."""
    size = len(job.policy) + job.adapter_size % 7
    return 0.6 + 0.01 * job.seed + 0.02 * size + float(job.learning_rate)


def fill(name, preset, work_dir, *words):
    """Writes made-up results of all jobs of an experiment, one of each status."""
    words = ["--preset=" + preset, "--work_dir=%s" % work_dir, *words]
    jobs = make_study(name, *words).jobs
    _, diverged, collapsed, *_ = (job for job in jobs if job.seed == 1)
    for job in jobs:
        score = made_up_score(job) * (0.9 if job.without else 1)
        found = result(score, test_scores={"f1": score - 0.1})
        if job == diverged:
            found = result(None, results.DIVERGED)
        if job == collapsed:
            found = result(0.5, results.COLLAPSED)
        results.write(str(work_dir), job, found)
    return jobs


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_experiment_reports_on_all_of_its_results(name, tmp_path):
    given = [FURTHER] if name == "table2" else ["--tasks=MRPC,CoLA"]
    fill(name, grid.SMALL, tmp_path, *given)
    words = [name, "--preset=small", *given, "--work_dir=%s" % tmp_path]
    assert program(*words, "--report_only") == 0
    folder = tmp_path / name
    page = (folder / "report.md").read_text()
    assert "1 collapsed, 1 diverged" in page
    assert "diverged: made up" in page
    command = shlex.join(["python", "reproduce_paper.py", *words])
    assert "```bash\n%s\n```" % command in page
    pictures = [each for each in folder.iterdir() if each.suffix == ".png"]
    assert bool(pictures) == (not name.startswith("table"))
    for picture in pictures:
        assert "](%s)" % picture.name in page
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in picture.with_suffix(".svg").read_bytes()
    if name == "init_scale":
        contents = {each.name: each.read_bytes() for each in folder.iterdir()}
        program(*words, "--report_only")
        for each in folder.iterdir():
            assert each.read_bytes() == contents[each.name]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_report_on_nothing_says_so(name, tmp_path):
    given = [FURTHER] if name == "table2" else []
    words = ["--preset=paper", "--work_dir=%s" % tmp_path, "--report_only", *given]
    assert program(name, *words) == 0
    page = (tmp_path / name / "report.md").read_text()
    assert "incomplete" in page
    assert "Jobs: 0 of " in page


def test_table_1_against_its_figures(tmp_path):
    """Every number of the small table, computed by hand."""
    scores = {
        # 3e-5 has the best mean, 1e-4 the best seed.
        ("full", "3e-5"): (0.80, 0.82, 0.84),
        ("full", "1e-4"): (0.90, 0.70, 0.70),
        ("adapters", "3e-4"): (0.79, 0.81, 0.83),
        ("adapters", "1e-3"): (0.50, 0.50, 0.95),
    }
    for job in fill("table1", grid.SMALL, tmp_path, "--tasks=MRPC"):
        score = scores[job.policy, job.learning_rate][job.seed - 1]
        status = results.COLLAPSED if score == 0.5 else results.OK
        results.write(str(tmp_path), job, result(score, status))
    words = ["--preset=small", "--tasks=MRPC", "--work_dir=%s" % tmp_path]
    program("table1", *words, "--report_only")
    page = (tmp_path / "table1" / "report.md").read_text()
    assert "| full fine-tuning | 1.00 | 90.0 | 90.0 |" in page
    assert "| adapters, 64 | 1.00 | 95.0 | 95.0 |" in page
    assert "| - | 89.3 | 89.3 |" in page  # the paper
    assert (
        "| MRPC | full fine-tuning | learning rate 3e-5, 5 epochs | 80.0 82.0 84.0 | "
        "82.0 ± 1.2 | 6 of 6 ended |"
    ) in page
    assert (
        "| MRPC | adapters, 64 | learning rate 3e-4, 5 epochs, size 64 | "
        "79.0 81.0 83.0 | 81.0 ± 1.2 | 6 of 6 ended, 2 collapsed |"
    ) in page
    assert "| adapters, 64 | -1.0 ± 1.6 | -1.00 | - |" in page


def test_files_for_the_server_are_those_of_the_best_runs(tmp_path):
    # A further task has no such file.
    words = ["--seeds=1", "--task_configs=mail.json", "--tasks=" + ",".join(grid.GLUE)]
    jobs = fill("table1", grid.PAPER, tmp_path, *words)
    for job in jobs:
        folder = pathlib.Path(results.job_folder(str(tmp_path), job))
        if job.task in grid.GLUE:
            for split in reproduce_paper.glue_data.get_task(job.task).test:
                (folder / split.submission_file).write_text(job.name)
    words += ["--preset=paper", "--work_dir=%s" % tmp_path]
    program("table1", *words, "--report_only")
    folder = tmp_path / "table1" / "submission-2"
    sent = {each.name: each.read_text() for each in folder.iterdir()}
    assert len(sent) == 11
    # The highest learning rate has the highest made-up score; 8 and 64 are 1 mod 7.
    assert sent["RTE.tsv"] == "rte-adapters256-init1e-2-lr3e-3-ep3-seed1"
    assert sent["MNLI-mm.tsv"].startswith("mnli-adapters256")
    assert sent["WNLI.tsv"].splitlines()[:2] == ["index\tprediction", "0\t0"]
    page = (tmp_path / "table1" / "report.md").read_text()
    assert "glue_submission.py --output_dirs=%s/table1/submission-2" % tmp_path in page


def test_list_prints_commands_that_run_one_job_each(tmp_path, capsys, started):
    words = ["table1", "--preset=small", "--tasks=RTE", "--glue_dir=a b", *BASE]
    words += ["--work_dir=%s" % tmp_path, "--seeds=1"]
    assert program(*words, "--list", "--jobs=2") == 0
    commands = capsys.readouterr().out.splitlines()
    assert len(commands) == 4
    assert not started
    first = shlex.split(commands[0])
    assert first[:2] == ["python", "reproduce_paper.py"]
    assert "--glue_dir=a b" in first
    assert "--jobs=2" not in first
    assert program(*first[2:]) == 0
    assert [job.name for job in started] == [first[-1].partition("=")[2]]
    assert not (tmp_path / "table1").exists()


def test_no_job_needs_layers_that_the_encoder_lacks(tmp_path):
    config = tmp_path / "bert_config.json"
    config.write_text('{"vocab_size": 9, "num_hidden_layers": 3}')
    for words in ([], ["--bert_config_file=%s" % config]):
        study = make_study("methods", "--preset=paper", *words)
        numbers = {int(job.policy[6:]) for job in study.select(family="top_k")}
        assert numbers == set(range(1, 4 if words else 13))


def test_shards_are_all_jobs_and_keep_what_belongs_together():
    study = make_study("ablation", "--preset=paper")
    jobs = study.jobs
    parts = [reproduce_paper.select_shard(study, "%d/4" % n) for n in range(4)]
    assert sorted(job for part in parts for job in part) == sorted(jobs)
    for part in parts:
        assert {job.trained for job in part} <= set(part)
    assert [len(part) for part in parts] == [158, 158, 79, 79]
    # Later seeds follow the first: all seeds of a setting are in one shard.
    study = make_study("methods", "--preset=small")
    for count in range(2, 8):
        parts = [
            reproduce_paper.select_shard(study, "%d/%d" % (number, count))
            for number in range(count)
        ]
        due = [len(selection.due_jobs(part, study)) for part in parts]
        assert sum(due) == 156 and max(due) - min(due) <= 1


def test_dry_run_says_what_is_left(tmp_path, capsys):
    words = ["table1", "--preset=small", "--tasks=MRPC", "--work_dir=%s" % tmp_path]
    program(*words, "--dry_run")
    said = capsys.readouterr().out
    assert "12 jobs, 0 of them done" in said
    assert "6,876 training steps" in said  # 12 times 3668 / 32 * 5
    jobs = fill("table1", grid.SMALL, tmp_path, "--tasks=MRPC")
    program(*words, "--dry_run")
    assert capsys.readouterr().out == "12 jobs, all done\n"
    for job in jobs[3:]:
        os.remove(os.path.join(results.job_folder(str(tmp_path), job), "result.json"))
    program(*words, "--dry_run")
    said = capsys.readouterr().out
    assert "12 jobs, 3 of them done" in said
    assert "5,157 training steps" in said
    assert "about 9.0 minutes" in said  # nine jobs of a minute


def test_later_seeds_train_what_the_first_one_selects(
    tmp_path, started, capsys, monkeypatch
):
    studies = []
    monkeypatch.setattr(
        reproduce_paper, "_write_report", lambda *args: studies.append(args[2])
    )
    words = ["methods", SMALL, "--tasks=MRPC", "--work_dir=%s" % tmp_path, *BASE]
    words.append("--glue_dir=g")
    console.start()
    assert program(*words) == 0
    said = capsys.readouterr().err
    assert "39 jobs, 0 of them done; at most 26 more follow" in said
    assert [job.seed for job in started] == [1] * 39 + [2, 3] * 13
    # The first of three rates: their made-up scores are equal.
    rates = {job.learning_rate for job in started[39:] if job.policy == "full"}
    assert rates == {"3e-5"}
    assert len(studies[-1].jobs) == len(studies[-1].results) == 65
    assert program(*words, "--dry_run") == 0
    assert capsys.readouterr().out == "65 jobs, all done\n"
    # A shard selects by the results of all.
    shutil.rmtree(tmp_path / "jobs")
    started.clear()
    for shard in ("1/2", "0/2", "1/2"):
        program(*words, "--shard=" + shard)
    assert len(started) == len({job.name for job in started}) == 65
    # A shard without jobs that are due ends.
    started.clear()
    assert program(*words, "--shard=998/1000") == 0
    assert not started
    # A job that is named is run without a selection.
    name = "mrpc-full-lr1e-4-ep5-corrected-seed3"
    assert program(*words, "--job=" + name) == 0
    assert started[-1].name == name


def test_the_exit_status_says_whether_all_is_done(
    tmp_path, started, monkeypatch, capsys
):
    words = ["stability", SMALL, "--seeds=1", "--glue_dir=g", *BASE]
    words.append("--work_dir=%s" % tmp_path)
    console.start()
    assert program(*words) == 0
    said = capsys.readouterr().err
    assert said.index("6 jobs, 0 of them done") < said.index("seed1: ok")
    assert len(started) == 6
    # Published results: nothing is run again, and a smaller report loses none.
    shutil.rmtree(tmp_path / "jobs")
    archive = tmp_path / "stability" / "results.jsonl"
    content = archive.read_text()
    assert program(*words, "--tasks=", FURTHER, "--report_only") == 0
    assert archive.read_text() == content
    assert program(*words) == 0
    assert archive.read_text() == content
    assert len(started) == 6
    # Another experiment begins with the results of all archives, and a report keeps
    # what its folder of jobs lacks.
    shutil.rmtree(tmp_path / "jobs")
    assert program("size", *words[1:]) == 0
    assert program(*words, "--dry_run") == 0
    assert capsys.readouterr().out == "6 jobs, all done\n"
    shutil.rmtree(tmp_path / "jobs")
    (tmp_path / "jobs").mkdir()
    assert program(*words, "--report_only") == 0
    assert archive.read_text() == content
    del started[6:]
    failed = result(None, results.FAILED)
    results.write(str(tmp_path), started[0], failed)
    held = failed._replace(status=results.HELD)
    ended = {started[0]: failed, started[1]: held}
    ended = {**dict.fromkeys(started, result(0.6)), **ended}
    monkeypatch.setattr(processes, "run", lambda *_: ended)
    assert program(*words) == 1
    said = capsys.readouterr().err
    assert "2 of 6 jobs not finished, 1 of them failed, 1 held by" in said


def test_an_interrupted_import_of_results_starts_again(tmp_path, started, monkeypatch):
    words = ["stability", SMALL, "--seeds=1", "--glue_dir=g", *BASE]
    words.append("--work_dir=%s" % tmp_path)
    assert program(*words) == 0
    shutil.rmtree(tmp_path / "jobs")
    effects = [mock.DEFAULT, KeyboardInterrupt]
    interrupted = mock.Mock(wraps=results.write, side_effect=effects)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(results, "write", interrupted)
        program(*words)
    assert program(*words) == 0
    assert len(started) == 6


def test_a_failure_replaces_no_result_of_an_archive(tmp_path):
    job = make_study("stability", SMALL).jobs[0]
    archive = tmp_path / "stability" / results.ARCHIVE
    archive.parent.mkdir()
    results.write_archive(str(archive.parent), {job: result(0.9)})
    line = archive.read_text()
    archive.write_text(line + line.replace('"ok"', '"failed"'))
    results.write(str(tmp_path), job, result(None, results.FAILED))
    program("stability", SMALL, "--work_dir=%s" % tmp_path, "--report_only")
    assert results.read_archive(str(archive.parent)) == {job: result(0.9)}


def test_failed_jobs_and_those_that_follow_them_are_missing(tmp_path):
    words = [SMALL, "--tasks=MRPC", "--work_dir=%s" % tmp_path]
    for job in make_study("methods", *words).jobs:
        if job.seed == 1:
            results.write(str(tmp_path), job, result(None, results.FAILED))
    program("methods", *words, "--report_only")
    page = (tmp_path / "methods" / "report.md").read_text()
    assert "65 jobs are missing" in page  # 39 failed, 26 follow


@pytest.mark.parametrize(
    ("listed", "count", "names"),
    [
        ("4,5", 2, ("4", "5")),
        ("GPU-ab, MIG-cd", 1, ("GPU-ab",)),
        ("4,5", 0, ()),
        ("4,5", 3, None),
        ("4,-1,5", 2, None),
        ("", 1, None),
        (None, 2, ("0", "1")),
    ],
)
def test_gpus_are_those_that_the_environment_lists(listed, count, names, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(reproduce_paper, "_GPUS", "no/driver")
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    if names is None:
        with pytest.raises(UserError, match=r"--gpus=%d.*%s has" % (count, listed)):
            reproduce_paper._gpu_names(count)
    else:
        assert reproduce_paper._gpu_names(count) == names


@pytest.mark.parametrize("path", ["file", "file/x", "/proc/x"])
def test_a_work_dir_that_cannot_be_written_is_refused_first(path, tmp_path, started):
    (tmp_path / "file").write_text("x")
    work_dir = "--work_dir=%s" % (tmp_path / path)
    with pytest.raises(UserError, match=r"/(file|proc)/.*cannot be written"):
        program("table1", SMALL, "--tasks=MRPC", "--glue_dir=g", *BASE, work_dir)
    assert not started


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tabel1"], "unknown experiment .tabel1.: the first argument is one of"),
        (["table1"], "--preset is required"),
        (["table1", "--preset=small"], "--work_dir is required"),
        (["table1", "--preset=small", "--work_dir=x"], "--init_checkpoint is required"),
        (["table1", "--preset=small", "--work_dir=x", *BASE[1:]], "c.json"),
        (["table1", "--preset=small", "--list", "x"], "'x' is not a flag"),
        (["table1", "--preset=small", "--tasks=MRCP"], "Task not found: MRCP"),
        (["table1", "--preset=small", "--tasks=AX"], "ax has no training set"),
        (["table1", "--jobs=abc"], "; reproduce_paper.py --help lists all flags"),
        (["table1", "--preset=small", "--tasks="], "no task is given.*--tasks"),
        (["table2", "--preset=small"], "no task is given.*--task_configs"),
        (["table2", SMALL, "--task_configs=a/x.json,b/x.json"], "another task x"),
        (["table2", SMALL, "--task_configs=a/mrpc.json"], "another task mrpc"),
        (["table2", SMALL, "--task_configs=a/a b.json"], "name the file with"),
        (["size", "--preset=small", "--seeds=0"], "--seeds=0"),
        (["size", "--preset=small", "--seeds=1000000000"], "--seeds=1000000000"),
        (["size", "--preset=small", "--gpus=-1"], "--gpus=-1"),
        (["size", "--preset=small", "--jobs=0"], "--jobs=0"),
        (["size", "--preset=small", "--list", "--shard=4/4"], "--shard=4/4"),
        (["size", "--preset=small", "--list", "--job=x"], "--job=x: there is no such"),
        (["size", SMALL, "--report_only", "--job=x"], "--job does not go with"),
        (["size", SMALL, "--work_dir=x", "--gpus_per_job=1"], "--launcher=local"),
        (["size", SMALL, "--work_dir=x", "--gpus=1", "--launcher=ray"], "--gpus does"),
    ],
)  # fmt: skip
def test_what_is_refused(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        program(*words)
    assert not list(tmp_path.iterdir())


def test_a_dry_run_checks_what_a_run_checks(tmp_path, monkeypatch, no_files):
    monkeypatch.setattr(ray_launcher, "ray", None)
    words = ["table2", SMALL, FURTHER, "--work_dir=%s" % tmp_path, *BASE]
    for more in ([], ["--dry_run"]):
        with pytest.raises(UserError, match="needs Ray: pip install ray"):
            program(*words, "--launcher=ray", *more)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    with pytest.raises(UserError, match="--gpus=3"):
        program(*words, "--gpus=3", "--dry_run")
