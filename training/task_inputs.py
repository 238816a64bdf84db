"""One run of a task: what it is made of, and its features."""

import os
from typing import Any, NamedTuple

import tokenization
from inputs import feature_cache, features, tasks
from training import estimators
from weights import diagnosis, run_package


class TaskRun(NamedTuple):
    """What is run on, once every check has passed."""

    task: tasks.Task
    examples: dict[str, list[features.InputExample]]  # by the split's name
    data_dir: str
    vocab_file: str
    do_lower_case: bool
    tokenizer: tokenization.FullTokenizer  # of `vocab_file` and `do_lower_case`
    max_seq_length: int
    dynamic_padding: bool  # ignored on TPU
    length_multiple: int  # what dynamic padding pads to a multiple of
    settings: estimators.RunSettings
    package: run_package.PackageSettings  # that training leaves behind
    num_warmup_steps: int | None
    leaves_out_infinite: bool  # see `progress.ProgressSettings`
    training: dict[str, Any]  # settings of the training by their flags' names
    diagnostics: diagnosis.Diagnostics  # of the weights that it starts from
    plots: bool  # whether evaluations draw their confusion matrices
    dev_steps: Any  # the `dev_steps.Settings`
    written: dict[tuple[str, str], tuple]  # what `write_features` has given
    ablated: str = ""  # layers whose adapters are left out, such as "0-4"

    def result_name(self, name):
        """A file of results: such as eval_results.txt, eval_results_without_0-4.txt."""
        if not self.ablated:
            return name
        stem, ending = os.path.splitext(name)
        return "%s_without_%s%s" % (stem, self.ablated, ending)


def write_features(run, split, kind, batch_size):
    """Writes the features of a split, unless they are there.

    Args:
      run: a `TaskRun`.
      split: a `tasks.Split`.
      kind: "train", "eval" or "predict", which names the file.
      batch_size: on TPU the last batch of "eval" and "predict" is filled up to it.

    Returns:
      The path, the number of examples in the file, and their `features.TextCounts`.
    """
    if (kind, split.name) in run.written:
        return run.written[kind, split.name]
    settings, task = run.settings, run.task
    examples = list(run.examples[split.name])
    if settings.use_tpu and kind != "train":
        while len(examples) % batch_size:
            examples.append(features.PaddingInputExample())
    label_list = None if task.is_regression else list(task.labels)
    folder = settings.output_dir
    if not settings.is_chief:
        # It shares `output_dir` with the chief.
        folder = run_package.temporary_folder()
    path = os.path.join(folder, "%s%s.tf_record" % (kind, split.suffix))
    key = feature_cache.cache_key(
        os.path.join(run.data_dir, split.filename),
        split,
        run.vocab_file,
        run.do_lower_case,
        label_list,
        run.max_seq_length,
        len(examples),
    )
    counts = feature_cache.build_features(
        examples, label_list, run.max_seq_length, run.tokenizer, path, key
    )
    run.written[kind, split.name] = path, len(examples), counts
    return path, len(examples), counts


def make_input_fn(run, split, kind, batch_size):
    """Reads the features of a split; see `write_features`.

    Returns:
      The input function, and the number of examples in the file.
    """
    path, count, _ = write_features(run, split, kind, batch_size)
    is_training = kind == "train"
    input_fn = features.input_fn_builder(
        path,
        run.max_seq_length,
        is_training,
        drop_remainder=is_training or run.settings.use_tpu,
        is_regression=run.task.is_regression,
        dynamic_padding=run.dynamic_padding and not run.settings.use_tpu,
        num_examples=count,
        seed=run.settings.seed,
        length_multiple=run.length_multiple,
    )
    return input_fn, count
