"""Figure 6, right: the standard deviation that adapters start from."""

from experiments import pages, plots
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
    page = pages.start_report(study, "Figure 6, right: the initial scale")
    panels, baselines, rows = {}, {}, []
    for task in study.tasks:
        found = pages.best_by_value(
            study,
            [job for job in study.jobs if job.task == task],
            _SCALES[study.preset],
            lambda job: job.init_scale,
            "adapters of size 64",
        )
        rows += [[title(task), *row] for row in found.rows]
        if found.line:
            panels[title(task)] = [found.line]
            baselines[title(task)] = found.baseline
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
    tasks={PAPER: ("mnli", "cola"), SMALL: ("cola",)},
    seeds={PAPER: (1, 2, 3), SMALL: (1, 2)},
    jobs=_jobs,
    report=_report,
)
