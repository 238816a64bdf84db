"""Adapter packages as text: a summary of one, a table of several."""

import json

from system import text_table, wording

_MOST_LABELS = 20  # whose examples are counted


def format_summary(package):
    """A summary of one package, a list of lines."""
    return text_table.align_columns(summarize(package).items())


def summarize(package):
    """A summary of one package: dict from an entry's name to its text."""
    config, settings = package.config, package.config["settings"] or {}
    base = config["base"]
    return {
        "package": package.path,
        "task": package.task,
        "labels": ", ".join(package.labels) or package.task_type.describe(),
        "texts": _texts(package),
        "examples": _examples(package),
        "metrics": ", ".join(config["task"]["metrics"]),
        "dev scores": _dev_scores(config),
        "health": _health(package.diagnostics),
        "parameters": "%s, %.2f %% of the base model's frozen %s"
        % (
            wording.thousands(config["parameters"]),
            100.0 * config["parameters"] / base["parameters"],
            wording.thousands(base["parameters"]),
        ),
        "bytes": wording.thousands(package.file_bytes),
        "trained": "%s; %d steps%s"
        % (
            package.method.description,
            config["global_step"],
            ", " + config["selection"] if config["selection"] else "",
        ),
        "adapters": package.method.describe_adapters(
            package.bert_config.num_hidden_layers
        ),
        "head": package.task_type.describe_head(),
        "settings": ", ".join(
            "%s=%s" % (name, json.dumps(settings[name])) for name in sorted(settings)
        )
        or "not known",
        "model": "%(num_hidden_layers)d layers, hidden size %(hidden_size)d, "
        "%(num_attention_heads)d heads, feed-forward %(intermediate_size)d, "
        "%(vocab_size)d word pieces" % config["bert_config"],
        "text": "%s, up to %d word pieces"
        % (
            "lower-cased" if config["do_lower_case"] else "cased",
            config["max_seq_length"],
        ),
        "vocabulary": "SHA-256 " + config["vocabulary"],
        "base": ", ".join(
            filter(None, [config["base_model"], "SHA-256 " + base["sha256"]])
        ),
        "license": config["license"] or "not stated",
        "origin": config["origin"] or "a training run",
        "written by": "version %s of this program" % config["program_version"],
    }


def _texts(package):
    if package.text_columns is None:
        return "not known"
    columns = [json.dumps(each, ensure_ascii=False) for each in package.text_columns]
    if package.takes_pairs:
        return "pairs, in the columns %s and %s" % tuple(columns)
    return "one, in the column %s" % columns[0]


def _examples(package):
    """Numbers of training and dev examples; by label where there are few labels."""
    parts, found = [], package.config["examples"] or {}
    for name in sorted(found, key=lambda name: (name != "train", name)):
        counts = found[name]
        text = "%d in %s" % (sum(counts), name)
        if 1 < len(counts) == len(package.labels) <= _MOST_LABELS:
            pairs = ["%s %d" % each for each in zip(package.labels, counts)]
            text += " (%s)" % ", ".join(pairs)
        parts.append(text)
    return "; ".join(parts) or "not known"


def format_table(packages):
    """A table of packages, a list of lines."""
    rows = [
        {
            "task": package.task,
            "size": str(package.adapter_size or package.method.text),
            "parameters": wording.thousands(package.config["parameters"]),
            "bytes": wording.thousands(package.file_bytes),
            "dev scores": _dev_scores(package.config),
            "health": _health(package.diagnostics).partition(":")[0],
            "base": package.config["base"]["sha256"][:8],
            "package": package.path,
        }
        for package in packages
    ]
    return text_table.align_columns([list(rows[0]), *(row.values() for row in rows)])


def _health(diagnostics):
    if diagnostics.training is None and diagnostics.evaluation is None:
        return "-"
    if not diagnostics.warnings:
        return "ok"
    return "DEGENERATE: " + "; ".join(diagnostics.warnings)


def _dev_scores(config):
    """Scores of all dev sets, with the names of sets other than "dev"."""
    sets = []
    for name, scores in sorted((config["dev_scores"] or {}).items()):
        text = ", ".join(
            "%s %s" % (metric, "nan" if value is None else "%.4f" % value)
            for metric, value in sorted(scores.items())
        )
        sets.append(text if name == "dev" else "%s: %s" % (name, text))
    return "; ".join(sets) or "none"
