"""Figure 5: F1 on SQuAD v1.1 by trained parameters."""

from experiments import datasets, grid, reports, results, selection, trade_off

_SIZES = (2, 8, 64, 256)
_EXACT = "exact_match"


def _add_settings(study, report):
    """Adds a table of the selected settings with both of SQuAD's scores."""
    rows = []
    for task in study.tasks:
        title, scored = datasets.find(task).title, None
        by_size = selection.group(study.select(task=task), lambda job: job.adapter_size)
        for adapter_size, jobs in by_size.items():
            best, summary = selection.best_setting(jobs, study.results)
            if summary is None:
                continue
            ended = results.list_results(best, study.results)
            name = "adapters" if adapter_size else "full fine-tuning"
            seeds = " ".join(map(reports.points, summary.scores))
            exact = selection.summarize(each.dev_score(_EXACT) for each in ended)
            means = map(reports.mean_text, (summary, exact))
            rows.append([title, name, reports.setting_text(best), seeds, *means])
            scored = next((each for each in ended if each.sets), scored)
        if scored is not None:
            rule = scored.baseline, scored.dev_score(_EXACT, of="baseline")
            texts = map(reports.points, rule)
            rows.append([title, "baseline", reports.NONE, reports.NONE, *texts])
    report.add_table(
        ["questions", "", "setting", "F1 by seed", "F1", "exact match"], rows
    )


def _write_report(study, report):
    report.add_text(
        "For full fine-tuning and each size of adapters, the setting with the highest "
        "mean F1 on the dev set."
    )
    trade_off.add_each_task(study, report, {"adapters": grid.ADAPTERS}, "squad")
    _add_settings(study, report)
    report.add_text(
        "The paper, on SQuAD v1.1: full fine-tuning 90.7, adapters of size 64 (2 % of "
        "the parameters) 90.4, of size 2 (0.1 %) 89.9."
    )


_PAPER_METHODS = [
    grid.Method(grid.FULL, ("3e-5", "5e-5", "1e-4"), (2, 3, 5)),
    grid.adapters(("3e-5", "1e-4", "3e-4", "1e-3"), _SIZES, (3, 10, 20)),
]
_SMALL_METHODS = [
    grid.small_adapters(("1e-3", "3e-3"), _SIZES),
    grid.Method(grid.FULL, ("3e-5", "1e-4", "3e-4", "1e-3"), is_corrected=True),
]
EXPERIMENT = grid.Experiment(
    title="SQuAD v1.1: figure 5",
    about="Questions: adapter sizes against full fine-tuning.",
    paper=grid.Preset(("squad",), 3, _PAPER_METHODS),
    small=grid.Preset(("squad_sample",), 3, _SMALL_METHODS),
    write_report=_write_report,
)
