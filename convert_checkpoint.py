"""Converts encoders and adapters from and to the formats of other libraries.

--to=checkpoint   an encoder in Hugging Face's layout -> bert_model.ckpt,
                  bert_config.json and vocab.txt, as in Google's releases
--to=huggingface  such a checkpoint, optionally with an adapter package, as far as it
                  can be merged -> Hugging Face's layout, for transformers
--to=package      an adapter of AdapterHub's library, or LoRA of peft
                  -> an adapter package
--to=adapterhub   an adapter package -> the format of AdapterHub's library
--to=peft         a package of LoRA -> the format of peft
"""

import system.startup  # noqa: F401  (before TensorFlow)

from absl import flags

import command_line
import glue_data
from errors import UserError
from exchange import conversion, packages
from weights import base_model, package_conversion

_BASE = base_model.BaseFiles._fields
_TASK = ("task_name", "task_config", "labels", "do_lower_case", "max_seq_length")
_QUESTIONS = (
    *("doc_stride", "max_query_length"),
    *("version_2_with_negative", "null_score_diff_threshold"),
)
# --to -> its required flags beside --output_dir, and its optional flags.
_DIRECTIONS = {
    "checkpoint": (("input_dir",), ("init_missing_pooler", "seed", "keep_head")),
    "huggingface": (_BASE, ("adapters", "do_lower_case", "keep_head")),
    "package": (("input_dir", *_BASE), (*_TASK, *_QUESTIONS, "new_head", "seed")),
    **dict.fromkeys(packages.FORMATS, (("adapters",), ())),
}


_TEXTS = {
    "to": "What to convert to: %s." % ", ".join(_DIRECTIONS),
    "output_dir": "Folder to create.",
    "input_dir": "For checkpoint: folder of a BERT encoder in Hugging Face's layout: "
    "config.json, vocab.txt or tokenizer.json, and model.safetensors or "
    "pytorch_model.bin, or an index with shards of them. For package: folder that "
    "save_adapter of AdapterHub's library wrote, or save_pretrained of peft.",
    "adapters": "For adapterhub and peft: the adapter package. For huggingface: "
    "optional, a package that is merged; adapters cannot be, of them the layer norms "
    "alone replace the base model's.",
    "keep_head": "Keep the head of a task, that of BertForSequenceClassification or "
    "BertForQuestionAnswering; without this flag the encoder is converted.",
    "doc_stride": "Question answering: distance of the windows in word pieces.",
    "max_query_length": "Question answering: maximum length of a question in word "
    "pieces.",
    "version_2_with_negative": "Question answering: questions may have no answer.",
    "null_score_diff_threshold": "Question answering: no answer is given if its score "
    "exceeds that of the best answer by more than this.",
    "task_name": "Task of the adapter: one of GLUE, or another name together with "
    "--labels.",
    "labels": "Labels in the order of the head's outputs, separated by commas; "
    "optional if the head has the task's labels.",
    "max_seq_length": "Maximum length of an input in word pieces.",
    "new_head": "Initialize a new head, which has to be trained, instead of the "
    "adapter's.",
    "do_lower_case": "Whether text is lower-cased; by default as --adapters, or else "
    "true.",
    "init_missing_pooler": "Initialize a random pooler if the encoder has none; "
    "without this flag that is an error. Adapter tuning does not train the pooler.",
    "seed": "Seed of --init_missing_pooler and --new_head.",
}


def define_flags(values):
    """Defines this program's flags; returns the groups of its help."""
    define = command_line.flag_definer(_TEXTS, values)
    path = command_line.DEFINE_path
    base_model_flags = command_line.define_base_flags(values)
    seeds = {"lower_bound": 0, "upper_bound": 2**32 - 1}
    return {
        "All": (
            define(flags.DEFINE_enum, "to", "checkpoint", list(_DIRECTIONS)),
            define(path, "output_dir", has_checkpoint=True),
        ),
        "Input": (define(path, "input_dir"), define(path, "adapters")),
        "Base model, for huggingface and package": base_model_flags,
        "For --to=package": (
            define(flags.DEFINE_string, "task_name", None),
            command_line.define_task_config(values),
            define(flags.DEFINE_list, "labels", None),
            define(flags.DEFINE_integer, "max_seq_length", 128),
            define(flags.DEFINE_integer, "doc_stride", 128),
            define(flags.DEFINE_integer, "max_query_length", 64),
            define(flags.DEFINE_bool, "version_2_with_negative", False),
            define(flags.DEFINE_float, "null_score_diff_threshold", 0.0),
            define(flags.DEFINE_bool, "new_head", False),
        ),
        "For --to=package and --to=huggingface": (
            define(flags.DEFINE_bool, "do_lower_case", None),
        ),
        "For --to=checkpoint and --to=huggingface": (
            define(flags.DEFINE_bool, "keep_head", False),
        ),
        "For --to=checkpoint": (
            define(flags.DEFINE_bool, "init_missing_pooler", False),
        ),
        "Randomness": (define(flags.DEFINE_integer, "seed", 12345, **seeds),),
    }


def main(argv):
    values = flags.FLAGS
    _check_flags(values)
    output_dir, case = values.output_dir, values.do_lower_case
    base = base_model.BaseFiles(*(values[name].value for name in _BASE))
    if values.to == "checkpoint":
        conversion.convert(
            *(values.input_dir, output_dir, values.init_missing_pooler),
            *(values.seed, values.keep_head),
        )
    elif values.to == "huggingface":
        conversion.write_model(
            base, output_dir, values.adapters, case, values.keep_head
        )
    elif values.to == "package":
        options = package_conversion.PackageOptions(
            *(_task(values), values.task_name, values.labels),
            {name: values[name].value for name in _QUESTIONS},
            *(case, values.max_seq_length),
        )
        seed = values.seed if values.new_head else None
        conversion.import_adapter(values.input_dir, base, options, output_dir, seed)
    else:
        conversion.export_adapter(values.adapters, output_dir, values.to)


def _task(values):
    """The `task_data.Task` of the flags; None: the task has only a name."""
    if values.task_config:
        return glue_data.select_task(values.task_name, values.task_config)[0]
    try:
        return glue_data.get_task(values.task_name)
    except UserError:
        return None


def _check_flags(values):
    """Refuses missing and superfluous flags; raises a `UserError`."""
    required, optional = _DIRECTIONS[values.to]
    required = ("output_dir", *required)
    missing = ["--" + name for name in required if not values[name].value]
    if values.to == "package" and not (values.task_name or values.task_config):
        missing.append("--task_name or --task_config")
    if missing:
        raise UserError("--to=%s needs %s." % (values.to, " and ".join(missing)))
    others = {name for lists in _DIRECTIONS.values() for part in lists for name in part}
    taken = ", ".join("--" + name for name in (*required, *optional))
    for name in sorted(others - {*required, *optional}):
        if values[name].present:
            raise UserError(
                "--%s does not go with --to=%s, which takes %s: leave it out, or give "
                "another --to (%s)." % (name, values.to, taken, ", ".join(_DIRECTIONS))
            )


if __name__ == "__main__":
    about = "python convert_checkpoint.py: " + __doc__
    command_line.run_program(main, about, define_flags(flags.FLAGS), flags.FLAGS)
