"""Figure 6, right: the standard deviation that adapters start from."""

from experiments import pages, plots, selection
from experiments.grid import (
    PAPER,
    PAPER_EPOCHS,
    PAPER_RATES,
    SMALL,
    Experiment,
    adapters,
    small_adapters,
    sweep,
    title,
)

_SCALES = {
    PAPER: ("1e-7", "1e-6", "1e-5", "1e-4", "1e-3", "1e-2", "1e-1", "1"),
    SMALL: ("1e-7", "1e-5", "1e-3", "1e-2", "1e-1", "1"),
}
_METHOD = {PAPER: adapters(PAPER_RATES, epochs=PAPER_EPOCHS), SMALL: small_adapters()}


def _jobs(study):
    method = _METHOD[study.preset]
    scales = _SCALES[study.preset]
    return sweep(study, [method._replace(init_scale=scale) for scale in scales])


def _report(study):
    page = pages.begin(study, "Figure 6, right: the initial scale")
    panels, baselines, rows = {}, {}, []
    for task in study.tasks:
        x, y, errors = [], [], []
        for scale in _SCALES[study.preset]:
            jobs = [j for j in study.jobs if (j.task, j.init_scale) == (task, scale)]
            best = selection.best_cell(jobs, study.results)
            found = selection.summary(best, study.results)
            counts = pages.told(selection.counts(jobs, study.results))
            rows.append([title(task), scale, pages.spread(found), counts])
            if found is not None:
                x.append(float(scale))
                y.append(100 * found.mean)
                errors.append(100 * (found.error or 0))
                baselines[title(task)] = 100 * study.results[best[0]].baseline
        if x:
            panels[title(task)] = [plots.Line("adapters of size 64", x, y, errors)]
    if panels:
        page.figure(
            "init_scale",
            "Score on the dev set, mean and standard error over seeds",
            plots.lines(
                panels,
                "standard deviation of the initial weights",
                "score, times 100",
                baselines,
            ),
        )
    page.table(["task", "initial scale", "score", "runs"], rows)
    page.text("The paper: flat below 1e-2, worse above, most of all on CoLA.")
    return page


EXPERIMENT = Experiment(
    about="The adapters' initial standard deviation, 1e-7 to 1.",
    base="BERT-base",
    tasks={PAPER: ("mnli", "cola"), SMALL: ("mrpc",)},
    seeds={PAPER: (1, 2, 3), SMALL: (1, 2)},
    jobs=_jobs,
    report=_report,
)
