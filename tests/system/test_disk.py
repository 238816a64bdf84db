"""A full disk gives one message, and costs nothing that was there."""

import contextlib
import errno
import os

import pytest
import tensorflow.compat.v1 as tf

from errors import UserError
from system import disk, files
from tests import small_disk, small_run
from training import progress


def test_a_text_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "run.json"
    files.write_whole(str(path), "before")
    with small_disk.files_end_at(100), pytest.raises(UserError) as caught:
        files.write_whole(str(path), "after " * 500)
    for part in (str(path), "File too large", "needs 3 kB", " are free there"):
        assert part in str(caught.value)
    assert os.listdir(tmp_path) == ["run.json"]
    assert path.read_text() == "before"


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.ResourceExhaustedError(None, None, "/a/b; No space left on device"),
        tf.errors.UnknownError(None, None, "2 errors\n /a/b; Input/output error\n [[x"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/b"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/from", None, "/a/b"),
        RuntimeError("/a/b; Disk quota exceeded\n\tFailed to flush 2 events"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_all_kinds(error):
    with pytest.raises(UserError) as caught, disk.explain_errors("/a"):
        raise error
    assert str(caught.value).startswith("/a/b cannot be written (")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO])
def test_space_is_the_remedy_only_for_a_lack_of_it(number):
    with pytest.raises(UserError) as caught, disk.explain_errors("/a", 100):
        raise OSError(number, os.strerror(number), "/a/b")
    assert "space" not in str(caught.value)
    assert "give a folder that can be written" in str(caught.value)


def test_other_errors_stay_what_they_are():
    error = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
    with pytest.raises(tf.errors.ResourceExhaustedError), disk.explain_errors("/a"):
        raise error


def test_a_training_ends_with_one_message_and_goes_on(tmp_path, monkeypatch, capsys):
    settings = {
        **small_run.write_model(tmp_path / "bert"),
        **small_run.write_mrpc(tmp_path / "MRPC"),
        "output_dir": str(tmp_path / "output"),
        "num_train_epochs": 2.0,  # 6 steps
        "save_checkpoints_steps": 2,
    }
    output = tmp_path / "output"
    limits = contextlib.ExitStack()

    def fill(hook):
        if hook.steps_done == 3:
            limits.enter_context(small_disk.files_end_at(60000))

    with monkeypatch.context() as patched, limits:
        patched.setattr(progress.ProgressHook, "_check_loss", fill)
        patched.setattr(disk, "free_bytes", lambda path: 123)
        with pytest.raises(SystemExit) as ended:
            small_run.run(do_train=True, **settings)
    assert ended.value.code == 1
    said = capsys.readouterr().err.splitlines()
    # Steps 0, 2, 4 and 6: 3,808 + 3 * 4,386 parameters each, of 4 bytes.
    (warning,) = [line for line in said if "are free there: make space, or" in line]
    assert "4 checkpoints of 67.5 kB need 270 kB, and 123 bytes are free" in warning
    assert said[-1].startswith("error: %s/model.ckpt-4" % output)
    for part in ("(File too large)", "needs 67.5 kB", "123 bytes are free"):
        assert part in said[-1]
    assert tf.train.latest_checkpoint(str(output)).endswith("model.ckpt-2")
    found = os.listdir(output)
    assert not [name for name in found if "ckpt-4" in name or name == "adapters"]
    unfinished = output / "model.ckpt-4_temp"  # As a kill leaves it.
    unfinished.mkdir()
    small_run.run(do_train=True, **settings)
    assert "from step 2" in capsys.readouterr().err
    assert not unfinished.exists()
    assert (output / "adapters").exists()
