"""Adam with bias correction, against the formulas in NumPy."""

import numpy as np
import pytest
import small_run
import tensorflow.compat.v1 as tf

import modeling
import optimization
from training import batch_gradients

STEPS, WARMUP, RATE = 20, 4, 1e-2
START = np.array([1.5, -2.0, 0.25])


def gradients(skipped=()):
    """One of each step; those of the steps in `skipped` are not finite."""
    random = np.random.RandomState(3)
    drawn = random.normal(scale=0.2, size=[STEPS, 3])
    drawn[list(skipped)] = np.inf
    return drawn


def reference(drawn):
    """Kingma and Ba, 2014, algorithm 1, with BERT's schedule, clipping and decay."""
    x, m, v, t = START.copy(), np.zeros(3), np.zeros(3), 0
    for step, gradient in enumerate(drawn, 1):
        if not np.isfinite(gradient).all():
            continue
        rate = RATE * (step / WARMUP if step < WARMUP else 1.0 - step / STEPS)
        gradient = gradient / max(1.0, np.linalg.norm(gradient))
        t += 1
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        mean, square = m / (1.0 - 0.9**t), v / (1.0 - 0.999**t)
        x = x - rate * (mean / (np.sqrt(square) + 1e-6) + 0.01 * x)
    return x, t


class Training:
    """A session in which one variable is trained by the gradients that are fed."""

    def __init__(self, parts=1, scaled=False, xla=False):
        self.graph = tf.Graph()
        with self.graph.as_default(), tf.xla.experimental.jit_scope(xla):
            self.x = modeling.get_variable(
                "adapters/weights1",
                [3],
                lambda *_, **__: tf.constant(START, tf.float32),
                (modeling.ADAPTERS,),
            )
            self.batch = tf.placeholder(tf.float32, [4, 3])
            scale = batch_gradients.LossScale() if scaled else None
            loss, computed = batch_gradients.mean_gradients(
                lambda part: tf.reduce_mean(
                    tf.reduce_sum(self.x * part["gradient"], axis=1)
                ),
                {"gradient": self.batch},
                parts,
                scale,
            )
            self.step = optimization.build_train_step(
                loss, RATE, STEPS, WARMUP, False, computed, scale, bias_correction=True
            )
            self.session = tf.Session()
            self.session.run(
                [tf.global_variables_initializer(), tf.local_variables_initializer()]
            )

    def run(self, drawn):
        for gradient in drawn:
            # Rows that differ, with this mean.
            rows = gradient + np.array([[0.5], [-0.5], [1.0], [-1.0]])
            self.session.run(self.step.train_op, {self.batch: rows})

    def values(self):
        with self.graph.as_default():
            return self.session.run({v.op.name: v for v in tf.global_variables()})


@pytest.mark.parametrize(
    ("skipped", "settings"),
    [
        ((), {}),
        ((), {"parts": 2}),
        ((), {"scaled": True}),
        ((0, 1, 9), {"scaled": True}),
        ((), {"xla": True}),
    ],
    ids=str,
)
def test_twenty_steps_equal_the_reference(skipped, settings):
    drawn = gradients(skipped)
    training = Training(**settings)
    training.run(drawn)
    expected, updates = reference(drawn)
    values = training.values()
    np.testing.assert_allclose(values["adapters/weights1"], expected, rtol=1e-5)
    assert values[optimization.UPDATES] == updates == STEPS - len(skipped)
    assert values["global_step"] == STEPS


@pytest.fixture
def setting(tmp_path):
    return {
        "do_train": True,
        "num_train_epochs": 2.0,
        "output_dir": str(tmp_path / "output"),
        **small_run.write_model(tmp_path / "bert"),
        **small_run.write_mrpc(tmp_path / "MRPC"),
    }


@pytest.mark.parametrize(("content", "then"), [("all", False), ("trained", True)])
def test_runs_resume_with_the_same_setting(setting, tmp_path, capsys, content, then):
    setting.update(checkpoint_content=content, save_checkpoints_steps=2)
    small_run.run(adam_bias_correction=then, **setting)
    output = tmp_path / "output"
    path = tf.train.latest_checkpoint(str(output))
    names = {name for name, _ in tf.train.list_variables(path)}
    assert (optimization.UPDATES in names) == then
    # The state of a run that was stopped at step 2.
    (output / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-2"\n')
    if then:
        small_run.run(adam_bias_correction=True, **setting)
        assert tf.train.load_variable(path, optimization.UPDATES) == 6
    for without_record in (False, True):
        if without_record:
            (output / "run.json").unlink()
        with pytest.raises(SystemExit):
            small_run.run(adam_bias_correction=not then, **setting)
        message = capsys.readouterr().err
        assert "--adam_bias_correction" in message
        assert "output" in message
