"""The model card of an adapter package, as Hugging Face's hub shows it: README.md."""

import json

from errors import printable
from system import text_table
from weights import package_report

FILE_NAME = "README.md"
_LOCAL = ("package", "bytes")  # entries of the summary that are of no use elsewhere

_CARD = """---
%(front)s---

# %(title)s

The weights that Adapter-BERT trained for one task on a frozen BERT. They need that base
model%(base)s, whose frozen weights have the SHA-256 below.

```text
%(summary)s
```

%(scores)s## Prediction

In the folder of Adapter-BERT, with the base model's files:

```bash
python predict.py --adapters=FOLDER_OF_THIS_FILE --input=FILE \\
  --init_checkpoint=bert_model.ckpt --bert_config_file=bert_config.json \\
  --vocab_file=vocab.txt
```
"""


def format_card(package):
    """The content of `FILE_NAME` for an `adapter_package.AdapterPackage`."""
    config, name = package.config, package.config["base_model"]
    front = {
        "base_model": name,
        "license": config["license"],
        "library_name": "adapter-bert",
        "pipeline_tag": package.task_type.hub_task,
        "tags": ["adapter-bert", package.method.name, package.task],
        "metrics": config["task"]["metrics"],
    }
    summary = package_report.summarize(package)
    summary = {key: text for key, text in summary.items() if key not in _LOCAL}
    return _CARD % {
        # JSON is a part of YAML.
        "front": "".join(
            "%s: %s\n" % (key, json.dumps(value))
            for key, value in front.items()
            if value
        ),
        "title": printable("%s, tuned by %s" % (package.task, package.method.text)),
        "base": ", `%s`" % name if name else "",
        # The text ends no block: its lines begin with the entries' names.
        "summary": "\n".join(text_table.align_columns(summary.items())),
        "scores": _format_scores(config["dev_scores"], config["baseline"] or {}),
    }


def _format_scores(scores, baselines):
    """A table of dev sets' scores, beside those of the best constant prediction."""
    rows = [
        "| %s | %s | %s | %s |\n"
        % (name, metric, _format(value), _format(baselines.get(name, {}).get(metric)))
        for name, found in sorted((scores or {}).items())
        for metric, value in sorted(found.items())
    ]
    if not rows:
        return ""
    head = "| dev set | metric | score | baseline |\n|---|---|---|---|\n"
    return "## Scores\n\n%s%s\n" % (head, "".join(rows))


def _format(score):
    return "" if score is None else "%.4f" % score
