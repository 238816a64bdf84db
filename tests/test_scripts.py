"""The shell scripts, run with made-up Pythons, and the files they install from."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from tests.places import ROOT
from training import estimator_compat

REQUIREMENTS = "requirements.txt"
TEST_REQUIREMENTS = "requirements-test.txt"
# All that the scripts may need besides Python.
TOOLS = ["bash", "cmp", "cp", "dirname", "env", "mkdir", "rm"]

# Stands in for a Python of any version: what `-c` is given runs for real, under a
# changed version number; `-m` and programs are only logged, and end with the
# status that the file `fail-NAME` holds, if there is one.
FAKE_PYTHON = """#!%(bash)s
log() { printf '%%q ' "$@" >>"$FAKES/log"; echo >>"$FAKES/log"; }
status_of() {
  if [[ -e "$FAKES/fail-$1" ]]; then echo "$1 fails"; exit 3; fi
}
case "$1" in
  -c) exec %(real)s -c '
import sys
sys.version_info = %(version)r
%(without)s
exec(sys.argv[1])' "$2" ;;
  --version) echo "Python %(version)r" ;;
  -m)
    if [[ "$2 $3" == "pip --version" ]]; then exit 0; fi
    log "${@:2}"
    if [[ $2 == venv ]]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi
    status_of "$2"
    echo "$2 passes" ;;
  *)
    log "$@"
    if [[ $1 == run_classifier.py ]]; then
      mkdir -p demo_work/tuned demo_work/messages
      cp "$FAKES/results" demo_work/tuned/eval_results.json
      cp "$FAKES/results" demo_work/messages/eval_results.json
    fi
    status_of "$1" ;;
esac
"""


class Checkout:
    """A copy of the scripts in a folder of its own, and a PATH to run them with."""

    def __init__(self, tmp_path):
        self.root = tmp_path / "a checkout"
        self.bin = tmp_path / "bin"
        self.bin.mkdir()
        (self.root / ".ci").mkdir(parents=True)
        for name in [
            *("environment.sh", "demo.sh", "test.sh", ".ci/run"),
            *(REQUIREMENTS, TEST_REQUIREMENTS),
        ]:
            shutil.copy(os.path.join(ROOT, name), self.root / name)
        for tool in TOOLS:
            os.symlink(shutil.which(tool), self.bin / tool)
        self.results(0.8)

    def add_python(self, name, version=None, without=""):
        """Puts a Python on the PATH; without a version one that does not run."""
        path = self.bin / name
        if version is None:
            path.write_text("#!%s\nexit 127\n" % shutil.which("bash"))
        else:
            values = {"version": version, "without": without}
            values.update(bash=shutil.which("bash"), real=sys.executable)
            path.write_text(FAKE_PYTHON % values)
        path.chmod(0o755)

    def fail(self, name):
        (self.bin / ("fail-" + name)).touch()

    def pass_again(self, name):
        (self.bin / ("fail-" + name)).unlink()

    def results(self, score):
        """Sets the accuracy that a made-up `run_classifier.py` comes to."""
        dev = {"examples": 160, "scores": {"accuracy": score}}
        dev["baseline"] = {"accuracy": 0.5}
        (self.bin / "results").write_text(json.dumps({"sets": {"dev": dev}}))

    def run(self, *command, **variables):
        """Runs a command from another folder; returns the completed process."""
        (self.bin / "log").write_text("")
        environment = {"PATH": str(self.bin), "FAKES": str(self.bin), **variables}
        return subprocess.run(
            command,
            cwd=self.bin,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def script(self, name, *arguments, **variables):
        return self.run(str(self.root / name), *arguments, **variables)

    def source(self, code, **variables):
        code = 'set -euo pipefail; cd "$1"; source ./environment.sh; ' + code
        return self.run("bash", "-c", code, "bash", str(self.root), **variables)

    def log(self):
        return [line.rstrip() for line in open(self.bin / "log")]


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


# Which Python.


@pytest.mark.parametrize(
    ("pythons", "expected"),
    [
        ({"python3.9": (3, 9, 1), "python3.11": (3, 11, 2)}, "python3.11"),
        ({"python3.12": (3, 12, 1), "python3.11": (3, 11, 2)}, "python3.11"),
        ({"python3.12": (3, 12, 1), "python3": (3, 8, 2)}, "python3.12"),
        ({"python3.10": (3, 10, 0), "python3": (3, 11, 0)}, "python3.10"),
        ({"python3": (3, 9, 0)}, "python3"),
        # A version manager's name for a version that it does not have.
        ({"python3.11": None, "python3.9": (3, 9, 1)}, "python3.9"),
    ],
)
def test_finds_the_first_usable_python(checkout, pythons, expected):
    for name, version in pythons.items():
        checkout.add_python(name, version)
    run = checkout.source('find_python; echo "$python"')
    assert (run.returncode, run.stdout) == (0, expected + "\n")


def test_says_what_is_wrong_with_each_python(checkout):
    checkout.add_python("python3.11", None)
    checkout.add_python("python3.10", (3, 10, 1), without='sys.modules["venv"] = None')
    checkout.add_python("python3", (3, 14, 1))
    run = checkout.source("find_python; echo found")
    assert run.returncode == 1
    assert run.stdout.startswith("error: no usable Python 3.9 to 3.13:")
    assert "python3.11: not found or does not run\n" in run.stdout
    assert "python3.10: 3.10 without what makes environments" in run.stdout
    assert "python3: 3.14, not 3.9 to 3.13\n" in run.stdout
    assert "found\n" not in run.stdout


@pytest.mark.parametrize("version", [(3, 8, 18), (3, 14, 0), (2, 7, 18), (4, 9, 0)])
def test_refuses_other_versions(checkout, version):
    checkout.add_python("python3", version)
    assert checkout.source("find_python").returncode == 1


def test_takes_the_python_that_it_is_told(checkout):
    checkout.add_python("python3.11", (3, 11, 1))
    checkout.add_python("my python", (3, 9, 1))
    run = checkout.source('find_python; echo "$python"', PYTHON="my python")
    assert run.stdout == "my python\n"


def test_takes_no_other_python_than_it_is_told(checkout):
    checkout.add_python("python3.11", (3, 11, 1))
    checkout.add_python("mine", (3, 14, 1))
    run = checkout.source("find_python", PYTHON="mine")
    assert run.returncode == 1
    assert "PYTHON=mine is: 3.14, not 3.9 to 3.13." in run.stdout


# The environment.

PREPARE = "prepare_environment requirements.txt requirements-test.txt"


def pip_installs(checkout):
    return [line.split()[-1] for line in checkout.log() if line.startswith("pip ")]


def makes_venv(checkout):
    return "venv .venv" in checkout.log()


def test_installs_once(checkout):
    checkout.add_python("python3.10", (3, 10, 1))
    assert checkout.source(PREPARE).returncode == 0
    assert makes_venv(checkout)
    assert pip_installs(checkout) == [REQUIREMENTS, TEST_REQUIREMENTS]

    run = checkout.source(PREPARE)

    assert run.returncode == 0
    assert checkout.log() == []
    assert "Using .venv as it is" in run.stdout


def test_installs_what_changed_and_what_is_new(checkout):
    checkout.add_python("python3.10", (3, 10, 1))
    checkout.source("prepare_environment requirements.txt")
    checkout.source(PREPARE)
    assert pip_installs(checkout) == [TEST_REQUIREMENTS]

    with open(checkout.root / REQUIREMENTS, "a") as stream:
        stream.write("another==1.0\n")
    checkout.source(PREPARE)

    assert pip_installs(checkout) == [REQUIREMENTS]
    assert not makes_venv(checkout)


def test_an_installation_that_failed_is_made_anew(checkout):
    checkout.add_python("python3.10", (3, 10, 1))
    checkout.fail("pip")
    run = checkout.source(PREPARE + "; echo went on")
    assert run.returncode == 1
    assert "error: pip could not install requirements.txt" in run.stdout
    assert "went on" not in run.stdout

    checkout.pass_again("pip")
    run = checkout.source(PREPARE)

    assert run.returncode == 0 and "Removing .venv" in run.stdout
    assert makes_venv(checkout)
    assert pip_installs(checkout) == [REQUIREMENTS, TEST_REQUIREMENTS]


def test_an_environment_that_was_half_made_is_made_anew(checkout):
    checkout.add_python("python3.10", (3, 10, 1))
    checkout.fail("venv")
    run = checkout.source(PREPARE)
    assert run.returncode == 1 and "-m venv .venv failed" in run.stdout
    checkout.pass_again("venv")
    assert checkout.source(PREPARE).returncode == 0
    assert makes_venv(checkout)


def test_an_environment_whose_python_is_gone_is_made_anew(checkout):
    checkout.add_python("python3.10", (3, 10, 1))
    checkout.source(PREPARE)
    (checkout.root / ".venv/bin/python").unlink()
    run = checkout.source(PREPARE)
    assert run.returncode == 0 and "its Python or its pip does not run" in run.stdout
    assert pip_installs(checkout) == [REQUIREMENTS, TEST_REQUIREMENTS]


def test_never_changes_the_python_of_an_environment_in_silence(checkout):
    checkout.add_python("python3.10", (3, 10, 1))
    checkout.add_python("python3.9", (3, 9, 1))
    checkout.source(PREPARE)
    assert checkout.source(PREPARE, PYTHON="python3.10").returncode == 0

    run = checkout.source(PREPARE, PYTHON="python3.9")

    assert run.returncode == 1
    assert "Remove .venv to have it made anew" in run.stdout
    assert checkout.log() == []


# The scripts.

PYTEST = "pytest -n 2 --dist worksteal"


def test_tests_take_arguments_and_hand_the_status_back(checkout):
    checkout.add_python("python3.10", (3, 10, 1))
    assert checkout.script("test.sh", "-k", "a b").returncode == 0
    assert checkout.log()[-1] == PYTEST + r" -k a\ b"
    checkout.fail("pytest")
    assert checkout.script("test.sh").returncode == 3


def test_ci_passes_only_when_all_pass(checkout):
    checkout.add_python("python3.10", (3, 10, 1))
    run = checkout.script(".ci/run")
    assert run.returncode == 0
    ran = [line for line in checkout.log() if not line.startswith(("venv", "pip"))]
    assert ran[0] == "ruff check ."
    steps = [*DEMO_STEPS, "run_classifier.py"]  # With a task of one's own.
    assert [line.split()[0] for line in ran[1:-1]] == steps
    assert ran[-1] == PYTEST
    assert "no Python 3.13 3.12 is here" in run.stdout


@pytest.mark.parametrize(
    ("first", "other"), [((3, 10, 1), (3, 12, 1)), ((3, 13, 1), (3, 9, 1))]
)
@pytest.mark.parametrize("on_path", [True, False])
def test_ci_tests_both_tensorflows(checkout, first, other, on_path):
    checkout.add_python("first", first)
    if on_path:
        checkout.add_python("python3.%d" % other[1], other)
    else:
        home = checkout.root / ".pyenv" / "versions" / ("%d.%d.%d" % other) / "bin"
        home.mkdir(parents=True)
        checkout.add_python("python", other)
        (checkout.bin / "python").rename(home / "python")
    run = checkout.script(".ci/run", PYTHON="first", HOME=str(checkout.root))
    assert run.returncode == 0
    ran = [line for line in checkout.log() if line.startswith("pytest")]
    assert ran[0] == PYTEST
    assert ran[1].startswith(PYTEST + " tests/training/test_estimator_compat.py ")
    assert len(ran) == 2
    assert "venv .venv-other" in checkout.log()
    home = {"PYTHON": "first", "HOME": str(checkout.root)}
    checkout.fail("pytest")
    assert checkout.script(".ci/run", **home).returncode == 3
    checkout.pass_again("pytest")
    # The first one is there and stays.
    shutil.rmtree(checkout.root / ".venv-other")
    checkout.fail("pip")
    run = checkout.script(".ci/run", **home)
    assert run.returncode == 1
    assert "pip could not install requirements.txt" in run.stdout


@pytest.mark.parametrize("name", ["ruff", "pytest"])
def test_ci_fails_when_one_check_fails(checkout, name):
    checkout.add_python("python3.10", (3, 10, 1))
    checkout.fail(name)
    run = checkout.script(".ci/run")
    assert run.returncode == 3
    assert run.stdout.endswith("%s fails\n" % name)


def test_ci_fails_when_a_script_does_not_parse(checkout):
    checkout.add_python("python3.10", (3, 10, 1))
    with open(checkout.root / "demo.sh", "a") as stream:
        stream.write("if true; then\n")
    run = checkout.script(".ci/run")
    assert run.returncode != 0
    assert "demo.sh" in run.stdout and "pytest passes" not in run.stdout


DEMO_STEPS = ["fetch_encoder.py", "convert_checkpoint.py", "run_classifier.py"]


@pytest.mark.parametrize("failing", DEMO_STEPS)
def test_the_demo_stops_at_the_step_that_fails(checkout, failing):
    checkout.add_python("python3.10", (3, 10, 1))
    checkout.fail(failing)
    run = checkout.script("demo.sh")
    assert run.returncode == 3
    words = [line.split()[0] for line in checkout.log()]
    started = [word for word in words if word in DEMO_STEPS]
    assert started == DEMO_STEPS[: DEMO_STEPS.index(failing) + 1]
    assert "4/4" not in run.stdout


@pytest.mark.parametrize("score", [0.8125, 0.69])
def test_the_demo_and_ci_fail_with_a_score_of_chance(checkout, score):
    checkout.add_python("python3.10", (3, 10, 1))
    checkout.results(score)
    for script in ("demo.sh", ".ci/run"):
        run = checkout.script(script)
        assert "%.1f %%" % (100 * score) in run.stdout
        assert ("this demo failed" in run.stdout) == (score < 0.7)
        assert run.returncode == (1 if score < 0.7 else 0)
        assert ("pytest passes" in run.stdout) == (script == ".ci/run" and score > 0.7)


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


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11", "3.12", "3.13"])
def test_the_tensorflow_of_each_python(version):
    versions = {
        requirement.name: str(requirement.specifier)
        for requirement in requirements_for(REQUIREMENTS, version)
    }
    tensorflow = estimator_compat.WITH_ESTIMATOR
    if version in ("3.12", "3.13"):
        (tensorflow,) = estimator_compat.WITHOUT_ESTIMATOR
    assert versions["tensorflow"].startswith("==%s." % tensorflow)
    assert versions["tensorflow-estimator"] == "==2.15.0"
    assert "tensorboard" in versions


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize("name", [REQUIREMENTS, TEST_REQUIREMENTS])
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
