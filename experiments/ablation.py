"""Figure 6, left and middle: ablation of adapters in spans of layers."""

import numpy as np

from experiments import datasets, grid, plots, reports, selection
from model import layer_ranges


def _spans(layers):
    """Yields first layer, last layer and text of each contiguous span of layers."""
    for first in range(layers):
        for last in range(first, layers):
            yield first, last, layer_ranges.format_layers(range(first, last + 1))


def _evaluations(job, layers):
    return [job._replace(without=text) for _, _, text in _spans(layers)]


def _change(study, trained, text):
    """The relative change of accuracy without some layers, or None."""
    pair = map(study.results.get, (trained, trained._replace(without=text)))
    before, after = (result and result.accuracy for result in pair)
    return after / before - 1 if before and after is not None else None


def _percent(value):
    return reports.NONE if np.isnan(value) else "%.1f %%" % (100 * value)


def _write_report(study, report):
    report.add_text(
        "Relative change of the accuracy on the dev set, mean over seeds, without "
        "further training, for an encoder of %d layers (`--bert_config_file`; by "
        "default the preset's). Collapsed seeds are included; their change is near 0."
        % study.layers
    )
    maps, rows = {}, []
    for task in study.tasks:
        trained = study.select(task=task, without="")
        values = np.full((study.layers, study.layers), np.nan)
        for first, last, text in _spans(study.layers):
            summary = selection.summarize(_change(study, job, text) for job in trained)
            if summary is not None:
                values[first, last] = summary.mean
        if np.isnan(values).all():
            continue
        maps[datasets.find(task).title] = values
        accuracy = selection.summarize_jobs(trained, study.results, "accuracy")
        half = study.layers // 2
        changes = (
            np.nanmin(np.diag(values)), values[0, half - 1] if half else np.nan,
            values[half, -1], values[0, -1],
        )  # fmt: skip
        title = datasets.find(task).title
        row = [title, reports.mean_text(accuracy), *map(_percent, changes)]
        rows.append(row)
    if maps:
        caption = "Relative change of accuracy, in per cent"
        report.add_figure("ablation", caption, plots.heat_maps(maps))
    header = ("task", "accuracy with all", "worst single layer", "lower half removed",
              "upper half removed", "all removed")  # fmt: skip
    report.add_table(header, rows)
    report.add_text(
        "The paper, BERT-base: a single layer costs at most 2 %, all layers bring the "
        "accuracy down to the majority-class baseline (37 % on MNLI, 69 % on CoLA), "
        "and the lowest layers matter least. Layers are counted from 0."
    )


EXPERIMENT = grid.Experiment(
    title="Figure 6: adapters removed",
    about="Adapters of spans of layers removed from trained models (heat maps).",
    paper=grid.Preset(("mnli", "cola"), 3, [grid.adapters(("3e-4",), epochs=(20,))]),
    small=grid.Preset(("mrpc", "cola"), 1, [grid.small_adapters()]),
    write_report=_write_report,
    evaluations=_evaluations,
)
