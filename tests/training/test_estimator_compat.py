"""The Estimator on each TensorFlow."""

import subprocess
import sys

import pytest
import tensorflow.compat.v1 as tf

from tests.places import ROOT
from training import estimator_compat


def test_is_that_of_the_installed_tensorflow():
    assert estimator_compat.estimator.tpu.TPUEstimator.train
    if tf.version.VERSION.startswith(estimator_compat.WITH_ESTIMATOR + "."):
        assert estimator_compat.estimator is tf.estimator


def test_a_version_that_was_not_tried_is_refused():
    code = (
        "import tensorflow.compat.v1 as tf\n"
        "tf.version.VERSION = '2.18.1'\n"
        "from training import estimator_compat"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 1
    last = run.stderr.splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert all(version in last for version in ("2.18.1", "2.15", "2.21"))


def test_what_has_no_stand_in_says_so():
    with pytest.raises(NotImplementedError, match="The thing"):
        estimator_compat._unavailable("The thing")(1, a=2)


def test_each_part_of_the_project_takes_the_estimator_from_here():
    parts = [*ROOT.glob("*.py"), *ROOT.glob("[a-z]*/*.py")]
    assert len(parts) > 60
    for path in parts:
        if path.name != "estimator_compat.py":
            assert "tf.estimator" not in path.read_text(), path
