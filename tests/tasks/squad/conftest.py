"""Settings of the tests of questions."""

import logging

import pytest


@pytest.fixture(autouse=True)
def _propagated(monkeypatch):
    """Lets pytest see the log, also after a test that has run a program."""
    for name in ("adapter_bert", "tensorflow"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
