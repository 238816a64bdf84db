"""The programs as functions: `run_classifier.run`, whose arguments are its flags."""

import json
import logging
import os
import signal
from concurrent import futures
from pathlib import Path

import pytest
from absl.testing import flagsaver

import run_classifier
from errors import UserError
from tests import small_run
from training import progress

WHOLE = {"do_train": True, "do_eval": True, "do_predict": True, "num_train_epochs": 1}
WHOLE |= {"adapter_size": 5, "adapter_placement": "pfeiffer"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Arguments for a small model and made-up rows."""
    folder = tmp_path_factory.mktemp("run")
    model = small_run.write_model(folder / "model")
    return {**model, **small_run.write_mrpc(folder / "MRPC")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, inputs):
    """The result of a whole run in a thread, while FLAGS have other values."""
    folder = tmp_path_factory.mktemp("trained")
    call = {**inputs, **WHOLE, "output_dir": folder, "keep_best": None}
    with (
        flagsaver.flagsaver(seed=5, train_policy="full"),
        futures.ThreadPoolExecutor() as pool,
    ):
        return pool.submit(run_classifier.run, **call).result()


def test_files_are_those_of_the_program(inputs, trained, tmp_path):
    folder = tmp_path / "program"
    small_run.run(**inputs, **WHOLE, output_dir=str(folder))
    ours, names = (
        {name for name in os.listdir(each) if not name.startswith("events.out")}
        for each in (trained.output_dir, folder)
    )
    assert ours == names
    for name in (
        "eval_results.txt",
        "dev_predictions.csv",
        "test_results.tsv",
        "adapters/adapter.safetensors",
    ):
        with open(os.path.join(trained.output_dir, name), "rb") as reader:
            assert reader.read() == (folder / name).read_bytes(), name


def test_the_result_names_scores_and_files(trained):
    folder = trained.output_dir
    with open(os.path.join(folder, "eval_results.json")) as reader:
        recorded = json.load(reader)
    assert trained.scores == {"dev": recorded["sets"]["dev"]["scores"]}
    assert trained.baseline == {"dev": recorded["sets"]["dev"]["baseline"]}
    assert set(trained.scores["dev"]) == set(trained.baseline["dev"]) != set()
    assert trained.global_step == recorded["global_step"] == 3
    assert trained.warnings == [
        *recorded["health"]["training"],
        *recorded["health"]["evaluation"],
    ]
    assert trained.status == ("ok" if recorded["health"]["ok"] else "degenerate")
    assert trained.package == os.path.join(folder, "adapters")
    assert list(trained.predictions) == ["dev", "test"]
    for name, count in (("dev", 11), ("test", 7)):
        assert (
            len(Path(trained.predictions[name][0]).read_text().split("\n")) == count + 1
        )


def test_a_second_call_is_independent_and_leaves_the_process_as_it_was(
    inputs, trained, tmp_path
):
    first_log = os.path.join(trained.output_dir, "log.txt")
    size = os.path.getsize(first_log)
    logger = logging.getLogger("tensorflow")
    before = [*logger.handlers], logger.level, logger.propagate
    handlers = {each: signal.getsignal(each) for each in (2, 15)}
    # Placement and size are the package's.
    found = run_classifier.run(
        **inputs,
        adapters=trained.package,
        do_eval=True,
        output_dir=tmp_path / "second",
    )
    assert found.scores == trained.scores
    assert (found.global_step, found.package) == (0, None)
    assert list(found.predictions) == ["dev"]
    assert os.path.getsize(first_log) == size
    assert ([*logger.handlers], logger.level, logger.propagate) == before
    assert {each: signal.getsignal(each) for each in handlers} == handlers


def test_a_relative_folder_is_that_of_the_working_directory(
    inputs, trained, tmp_path, monkeypatch
):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        given = {**inputs, "adapters": trained.package, "do_eval": True}
        run_classifier.run(**given, output_dir="out")
        assert list((tmp_path / name / "out" / "eval").glob("events.*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lerning_rate": 1e-3}, r"`lerning_rate` .*did you mean learning_rate\?"),
        ({"learning_rate": "fast"}, "`learning_rate`=fast"),
        ({"learning_rate": -1}, "`learning_rate`=-1.0: it must be"),
        ({"precision": "double"}, "`precision`=double.* the program's --help"),
        ({"flagfile": "x"}, "unknown argument `flagfile`"),
        ({"check": True}, "`check`"),
        ({"distribution_strategy": "multi_worker"}, "multi_worker"),
        (
            {"vocab_file": None, "task_name": None},
            "`task_name` is required: .*`task_config` .*\n  `vocab_file` is required",
        ),
        ({"task_name": "mprc"}, "mprc"),
    ],
)
def test_wrong_arguments_raise_a_user_error(inputs, tmp_path, changes, message):
    arguments = {**inputs, "do_eval": True, "output_dir": tmp_path / "output"}
    with pytest.raises(UserError, match=message):
        run_classifier.run(**{**arguments, **changes})
    assert not (tmp_path / "output").exists()


def test_ctrl_c_leaves_a_checkpoint_and_the_same_call_resumes(
    inputs, trained, tmp_path, monkeypatch
):
    call = {**inputs, **WHOLE, "output_dir": tmp_path / "output"}
    after_run = progress.ProgressHook.after_run

    def interrupt(hook, *values):
        after_run(hook, *values)
        if hook.steps_done == 1:
            signal.raise_signal(signal.SIGINT)

    # A shell has background jobs ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patches:
        patches.setattr(progress.ProgressHook, "after_run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_classifier.run(**call)
    signal.signal(signal.SIGINT, before)
    assert small_run.last_values(tmp_path / "output")["global_step"] == 1
    resumed = run_classifier.run(**call)
    assert resumed.scores == trained.scores
    expected = small_run.last_values(trained.output_dir)
    for name, value in small_run.last_values(tmp_path / "output").items():
        assert (value == expected[name]).all(), name
