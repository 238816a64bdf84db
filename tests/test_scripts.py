"""The shell scripts, and the requirement files that they install from."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from tests.places import ROOT
from training import estimator_compat

REQUIREMENTS = "requirements.txt"
TEST_REQUIREMENTS = "requirements-test.txt"
GPU_REQUIREMENTS = "requirements-gpu.txt"
SCRIPTS = ["environment.sh", "demo.sh", "test.sh", ".ci/run"]


def run_bash(code, **variables):
    """Runs code after `source ./environment.sh`; returns the completed process."""
    return subprocess.run(
        ["bash", "-c", "set -euo pipefail; source ./environment.sh; " + code],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_parse(name):
    subprocess.run(["bash", "-n", os.path.join(ROOT, name)], check=True)


def test_a_usable_python_is_taken():
    run = run_bash('find_python; echo "$python"', PYTHON=sys.executable)
    assert (run.returncode, run.stdout) == (0, sys.executable + "\n")


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 14, 0), (2, 7, 18)])
def test_a_python_of_another_version_is_refused(tmp_path, version):
    mine = tmp_path / "my python"
    code = "import sys; sys.version_info = %r; exec(sys.argv[2])" % (version,)
    mine.write_text("#!/bin/sh\nexec '%s' -c '%s' \"$@\"\n" % (sys.executable, code))
    mine.chmod(0o755)
    run = run_bash("find_python", PYTHON=str(mine))
    assert run.returncode == 1
    assert "%d.%d, not 3.10 to 3.13" % version[:2] in run.stdout


def test_an_environment_that_another_process_makes_is_kept(tmp_path):
    (tmp_path / "unfinished").write_text(str(os.getpid()))
    found = run_bash("make_venv", VENV=str(tmp_path))
    assert found.returncode == 1 and "process %d" % os.getpid() in found.stdout
    assert (tmp_path / "unfinished").exists()


def test_an_environment_without_pip_is_kept(tmp_path):
    (tmp_path / "notes").write_text("mine")
    run = run_bash("make_venv", VENV=str(tmp_path))
    assert run.returncode == 1
    assert (tmp_path / "notes").read_text() == "mine"


@pytest.mark.parametrize(("score", "status"), [(0.8125, 0), (0.69, 1)])
def test_a_score_of_chance_fails(tmp_path, score, status):
    dev = {"examples": 160, "scores": {"f1": score}, "baseline": {"f1": 0.5}}
    (tmp_path / "eval_results.json").write_text(json.dumps({"sets": {"dev": dev}}))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text('#!/bin/sh\nexec %s "$@"\n' % sys.executable)
    (tmp_path / "bin/python").chmod(0o755)
    run = run_bash("check_score '%s' f1 0.7 usual" % tmp_path, VENV=str(tmp_path))
    assert run.returncode == status
    assert "f1 on the 160 examples of the dev set: %g;" % score in run.stdout


@pytest.mark.parametrize(
    ("output", "status", "gpu"),
    [
        (
            "GPU 0: NVIDIA H200 (UUID: GPU-1)\nGPU 1: X (UUID: GPU-2)",
            0,
            "GPU 0: NVIDIA H200",
        ),
        ("No devices found.", 0, ""),
        ("NVIDIA-SMI has failed", 9, ""),
    ],
)
def test_a_gpu_is_found(tmp_path, output, status, gpu):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '%s'\nexit %d\n" % (output, status))
    program.chmod(0o755)
    path = "%s:%s" % (tmp_path, os.environ["PATH"])
    run = run_bash('gpu=$(find_gpu); echo "[$gpu]"', PATH=path)
    assert (run.returncode, run.stdout) == (0, "[%s]\n" % gpu)


# The requirement files.


def requirement_lines(name):
    with open(os.path.join(ROOT, name)) as stream:
        lines = [line.strip() for line in stream]
    return [line for line in lines if line and not line.startswith(("#", "--"))]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements_for(name, version):
    """The requirements of a file that count on a version of Python."""
    found = [Requirement(line) for line in requirement_lines(name)]
    return [
        requirement
        for requirement in found
        if requirement.marker is None
        or requirement.marker.evaluate({"python_version": version})
    ]


THIS_PYTHON = "%d.%d" % sys.version_info[:2]


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_the_tensorflow_of_each_python(version):
    versions = {
        requirement.name: str(requirement.specifier)
        for requirement in requirements_for(REQUIREMENTS, version)
    }
    tensorflow = estimator_compat.WITH_ESTIMATOR
    if version in ("3.12", "3.13"):
        (tensorflow,) = estimator_compat.WITHOUT_ESTIMATOR
    assert versions["tensorflow"].startswith("==%s." % tensorflow)
    gpu, *libraries = requirements_for(GPU_REQUIREMENTS, version)
    assert str(gpu.specifier) == versions["tensorflow"] and gpu.extras == {"and-cuda"}
    assert {each.name for each in libraries} >= {"nvidia-cudnn-cu12"}
    assert versions["tensorflow-estimator"] == "==2.15.0"
    assert "tensorboard" in versions


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize("name", [REQUIREMENTS, TEST_REQUIREMENTS, GPU_REQUIREMENTS])
def test_every_requirement_is_pinned_once(name, version):
    requirements = requirements_for(name, version)
    assert requirements
    for requirement in requirements:
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), requirement
    names = [canonical(requirement.name) for requirement in requirements]
    assert len(set(names)) == len(names)


def test_no_dependency_is_left_unpinned():
    pinned = {
        canonical(requirement.name)
        for name in (REQUIREMENTS, TEST_REQUIREMENTS)
        for requirement in requirements_for(name, THIS_PYTHON)
    }
    for name in sorted(pinned):
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # For another version of Python.
        for line in distribution.requires or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert canonical(needed.name) in pinned, (name, line)
