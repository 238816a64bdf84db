"""The data of a run: task, settings, `model_fn`, and the features of the examples."""

import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from inputs import feature_cache, features
from system import files
from tasks import bad_rows, task_data
from training import settings as run_settings
from weights import diagnosis, run_package


class FeatureFile(NamedTuple):
    """A TFRecord file of features."""

    path: str
    counts: features.TextCounts


class TaskInputs:
    """The examples of a task, and their features, which are written once.

    Attributes:
      task: a `task_data.Task`.
      examples: dict from a split's name to its `features.InputExample`s.
      settings: a `settings.Data`.
    """

    def __init__(self, task, examples, tokenizer, settings, run):
        """Takes the attributes, a `tokenization.FullTokenizer` and a `settings.Run`."""
        self.task, self.examples, self.settings = task, examples, settings
        self._tokenizer, self._run, self._files = tokenizer, run, {}
        self._digests = {
            split.name: files.digest(os.path.join(settings.data_dir, split.filename))
            for split in task.splits
            if split.name in examples
        }

    def write_features(self, split, kind):
        """Returns a split's `FeatureFile`, written unless it is up to date.

        `kind` is "train", "eval" or "predict", part of the file's name. On TPU the last
        batch of "eval" and "predict" is padded.
        """
        if (kind, split.name) in self._files:
            return self._files[kind, split.name]
        run, settings, task_type = self._run, self.settings, self.task.type
        multiple = 1
        if run.devices.use_tpu and kind != "train":
            multiple = run.predict_batch_size
            if kind == "eval":  # Also the features of predictions.
                multiple = math.lcm(multiple, run.eval_batch_size)
        # Workers share `output_dir` with the chief.
        folder = run.output_dir if run.is_chief else run_package.temporary_folder()
        path = os.path.join(folder, "%s%s.tf_record" % (kind, split.suffix))
        key = feature_cache.cache_key(
            self._digests[split.name],
            split,
            settings.vocab_file,
            settings.do_lower_case,
            task_type,
            settings.max_seq_length,
            multiple,
        )
        spec = task_type.feature_spec(settings.max_seq_length)
        counts = feature_cache.build_features(
            self.examples[split.name], self.featurize, spec, path, multiple, key
        )
        self._files[kind, split.name] = FeatureFile(path, counts)
        return self._files[kind, split.name]

    def featurize(self, index, example, counts=None):
        """The features of an example, see `task_type.TaskType.featurize`."""
        return self.task.type.featurize(
            index, example, self.settings.max_seq_length, self._tokenizer, counts
        )

    def make_input_fn(self, split, kind):
        """The input function of a split's features; see `write_features`."""
        file = self.write_features(split, kind)
        is_training, use_tpu = kind == "train", self._run.devices.use_tpu
        return features.input_fn_builder(
            file.path,
            self.settings.max_seq_length,
            is_training,
            drop_remainder=is_training or use_tpu,
            spec=self.task.type.feature_spec(self.settings.max_seq_length),
            dynamic_padding=self.settings.dynamic_padding and not use_tpu,
            num_examples=file.counts.features,
            seed=self._run.seed,
            length_multiple=self.settings.length_multiple,
        )


class TaskRun(NamedTuple):
    """A run that has passed every check, see `runner.prepare`."""

    task: task_data.Task
    inputs: TaskInputs
    settings: run_settings.Run
    model_fn: Callable  # see `classifier.model_fn_builder`
    package: run_package.PackageSettings  # of the package that training writes
    training: dict[str, Any]  # settings of training that affect the weights, by flag
    step_reached: int | None  # of the last checkpoint in `output_dir`, if any
    diagnostics: diagnosis.Diagnostics  # of the initial weights
    dev_evaluation: run_settings.DevEvaluation
    plots: bool  # whether confusion matrices are drawn
    skipped_rows: bad_rows.BadRows | None = None  # rows that were skipped
    ablated: str = ""  # layers with ablated adapters, such as "0-4"

    def result_name(self, name):
        """The name of a results file, such as eval_results_without_0-4.txt."""
        if not self.ablated:
            return name
        stem, extension = os.path.splitext(name)
        return "%s_without_%s%s" % (stem, self.ablated, extension)

    def result_path(self, name):
        """The path of a results file, see `result_name`."""
        return os.path.join(self.settings.output_dir, self.result_name(name))
