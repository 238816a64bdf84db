"""The record of a run, `run.json`, and checks of its output directory."""

import collections
import os

import tensorflow.compat.v1 as tf

import modeling
import optimization
from errors import UserError
from system import files, schema
from tuning import registry
from weights import adapter_package, checkpoints, diagnosis, package_checks

FILE_NAME = "run.json"

_REMEDY = "delete it to use the checkpoints beside it, or give another `output_dir`"

_ENTRIES = schema.Object({}, others=schema.ANY)
SCHEMA = schema.Object(
    {
        "identity": schema.Object(
            {
                "task": schema.TEXT,
                "labels": schema.List(schema.TEXT),
                "bert_config": _ENTRIES,
                "vocabulary": schema.TEXT,  # SHA-256 of its file
                "do_lower_case": schema.BOOLEAN,
                "max_seq_length": schema.integer(),
            },
            optional={
                "type": schema.TEXT,  # earlier versions left it out
                "train_policy": schema.TEXT,
                "adapter_layers": schema.List(schema.integer()),
                "task_config": _ENTRIES,
            },
            others=schema.ANY,
        )
    },
    optional={
        "base_model": schema.LINE,
        "training": _ENTRIES,
        "parameters": _ENTRIES,
        "health": diagnosis.SCHEMA,
        "examples": package_checks.EXAMPLES_SCHEMA,
        "skipped_rows": schema.Object({}, others=schema.integer()),
    },
    others=schema.ANY,
)

# Entries whose field has another name.
_FIELDS = {
    **adapter_package.FIELDS,
    "task": "task_name",
    "train_rows": "data_dir",
}


def write(output_dir, identity, training, parameters, base_model=None):
    """Writes `run.json`.

    Settings that the folder's checkpoint depends on are kept, if they are not given.

    Args:
      output_dir: the run's folder.
      identity: dict of the settings that the folder's weights depend on.
      training: dict of the settings that a resumed run must share; None keeps those
        in the file.
      parameters: the result of `VariableSet.parameter_counts`.
      base_model: name of the base model, or None.
    """
    record = {"training": None, **(read(output_dir) or {})}
    if checkpoints.latest(output_dir):
        identity = {**record.get("identity", {}), **identity}
        base_model = base_model or record.get("base_model")
    record.update(identity=identity, parameters=parameters, base_model=base_model)
    if training is not None:
        record["training"] = training
    _write(output_dir, record)


def _write(output_dir, record):
    text = files.format_json(record)
    files.write_whole(os.path.join(output_dir, FILE_NAME), text)


def copy(output_dir, folder):
    """Copies `run.json` into another folder."""
    tf.io.gfile.copy(
        os.path.join(output_dir, FILE_NAME), os.path.join(folder, FILE_NAME)
    )


def write_diagnostics(output_dir, diagnostics):
    """Records a run's `diagnosis.Diagnostics`, or None."""
    health = diagnostics and diagnostics.to_json()
    _write(output_dir, {**read(output_dir), "health": health})


def write_data(output_dir, examples, skipped_rows=None):
    """Records the data of a run, beside those of earlier runs in the folder.

    `examples` are of `package_checks.EXAMPLES_SCHEMA`; `skipped_rows` are the numbers
    of rows that were left out of files, a dict by path, or None.
    """
    record = read(output_dir)
    record["examples"] = {**(record.get("examples") or {}), **examples}
    if skipped_rows is not None:
        found: dict[str, int] = collections.Counter()
        for path, count in skipped_rows.items():
            found[os.path.basename(path)] += count
        record["skipped_rows"] = {**(record.get("skipped_rows") or {}), **found}
    _write(output_dir, record)


def read(output_dir):
    """The content of `run.json`, see `SCHEMA`; None if there is none.

    A `UserError` is raised if the file is damaged.
    """
    path = os.path.join(output_dir, FILE_NAME)
    record = files.read_json_if_there(path, _REMEDY, SCHEMA)
    if record is None:
        return None
    identity = record["identity"]
    config = modeling.BertConfig.from_dict(identity["bert_config"])
    config.validate(path)
    # Earlier versions wrote more entries of the config, and not all of the identity.
    identity["bert_config"] = config.to_dict()
    identity["train_policy"] = identity.get("train_policy") or registry.DEFAULT.text
    identity.setdefault("adapter_layers", list(range(config.num_hidden_layers)))
    if record.get("training"):
        record["training"].setdefault("class_weights", None)
    return record


def check(output_dir, identity, training, shapes, trained, content=checkpoints.ALL):
    """Refuses an output directory of another run; it need not exist.

    Args:
      output_dir, identity: see `write`.
      training: see `write`; None when this run does not train.
      shapes: dict from name to shape of the model's variables.
      trained: names of the trained variables.
      content: content of checkpoints, one of `checkpoints.CONTENTS`.

    Returns the global step of the folder's last checkpoint, or None. A `UserError` is
    raised for a file, or for the folder of another run, with what differs.
    """
    _check_folder(output_dir)
    path = checkpoints.latest(output_dir)
    record = read(output_dir) or {"identity": {}}
    # Also without a checkpoint: the run would overwrite results of another model.
    _compare(output_dir, "its model", record["identity"], identity)
    if path is None:
        _check_no_checkpoint_is_left(output_dir)
        return None
    if training is not None:
        _compare(output_dir, "its training", record.get("training") or {}, training)
    if "adapters" in identity and "adapters" not in record["identity"]:
        raise UserError(
            "`output_dir`=%s holds a checkpoint that was not trained from `adapters`, "
            "and that would be used instead; give a new `output_dir`" % output_dir
        )
    remedy = (
        "it is the last one in `output_dir`=%s; give a new `output_dir`, or the flags "
        "of the run that wrote it" % output_dir
    )
    if content == checkpoints.TRAINED:
        shapes = {name: shapes[name] for name in trained}
    checkpoint = checkpoints.Checkpoint(path, remedy)
    found = checkpoint.check_fit(shapes, trained, remedy=remedy)
    if found.missing:
        raise UserError(
            "`output_dir`=%s holds a checkpoint of another program: %s is missing in "
            "%s; give a new `output_dir`" % (output_dir, found.missing[0], path)
        )
    checkpoint.check_values(
        "name an earlier one of `output_dir`=%s in its file `checkpoint`, or "
        "give a new `output_dir`" % output_dir
    )
    if training is not None:  # The record may lack it.
        then = {"adam_bias_correction": optimization.UPDATES in checkpoint.shapes}
        _compare(output_dir, "its training", then, training)
    return checkpoint.step


def _check_folder(output_dir):
    """Refuses a file in the place of the folder, its parents or its eval/."""
    path = output_dir
    while path and not tf.io.gfile.exists(path):
        path = os.path.dirname(path)
    if path and not tf.io.gfile.isdir(path):
        raise UserError(
            "`output_dir`=%s: %s is a file; give a folder, which need not exist"
            % (output_dir, path)
        )
    path = os.path.join(output_dir, "eval")
    if tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path):
        raise UserError(
            "%s is a file, and the summaries of evaluations go to a folder of that "
            "name: move it away" % path
        )


def _check_no_checkpoint_is_left(output_dir):
    """Refuses to overwrite checkpoints that the file `checkpoint` does not name.

    A checkpoint of step 0 is ignored: a run killed before its first step leaves one.
    """
    left = files.list_folder(output_dir, "model.ckpt-*.index")
    names = [os.path.basename(path)[: -len(".index")] for path in left]
    names = [name for name in names if name != "model.ckpt-0"]
    if names:
        last = max(names, key=lambda name: (len(name), name))  # by the step in it
        raise UserError(
            "`output_dir`=%s holds %s, but its file `checkpoint`, which names the last "
            "one, is missing or names one that is not there; write it (one line, "
            'model_checkpoint_path: "%s"), or give a new `output_dir`'
            % (output_dir, last, last)
        )


def _compare(output_dir, what, then, now):
    for key in now:
        if key in then and then[key] != now[key]:
            raise UserError(
                "`output_dir`=%s holds another run, %s differs in %s: %s there, %s "
                "now; give a new `output_dir`, or the same `%s` to use that run"
                % (
                    output_dir,
                    what,
                    key,
                    *schema.describe_difference(then[key], now[key]),
                    _FIELDS.get(key, key),
                )
            )
