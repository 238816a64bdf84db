"""Figure 7: the best score at each learning rate, adapters and full fine-tuning."""

import modeling
import optimization
from experiments import pages, plots
from experiments.grid import (
    PAPER,
    PAPER_EPOCHS,
    PAPER_SCALE,
    SMALL,
    SMALL_SCALE,
    Experiment,
    Method,
    adapters,
    sweep,
    title,
)

_RATES = {
    PAPER: ("2e-5", "5e-5", "1e-4", "2e-4", "5e-4", "1e-3"),
    SMALL: ("3e-5", "1e-4", "3e-4", "1e-3", "3e-3"),
}
_NAMES = {
    modeling.ADAPTERS: "adapters",
    optimization.FULL: "full fine-tuning",
}


def _methods(preset):
    rates = _RATES[preset]
    if preset == PAPER:
        return (
            Method(optimization.FULL, rates, PAPER_EPOCHS),
            adapters(rates, epochs=PAPER_EPOCHS, scale=PAPER_SCALE),
        )
    return [
        method
        for is_corrected in (False, True)
        for method in (
            Method(optimization.FULL, rates, is_corrected=is_corrected),
            adapters(rates, scale=SMALL_SCALE, is_corrected=is_corrected),
        )
    ]


def _jobs(study):
    return sweep(study, _methods(study.preset))


def _line_of(study, job):
    """The name of the line that a job belongs to."""
    name = _NAMES[job.policy]
    if study.preset == PAPER:
        return name
    return "%s, moments %s" % (name, "corrected" if job.is_corrected else "plain")


def _report(study):
    page = pages.start_report(study, "Figure 7: learning rates")
    panels, baselines, rows = {}, {}, []
    for task in study.tasks:
        by_line: dict = {}
        for job in study.jobs:
            if job.task == task:
                by_line.setdefault(_line_of(study, job), []).append(job)
        for name, of_line in by_line.items():
            found = pages.best_by_value(
                study,
                of_line,
                _RATES[study.preset],
                lambda job: job.learning_rate,
                name,
            )
            rows += [[title(task), name, *row] for row in found.rows]
            if found.line:
                panels.setdefault(title(task), []).append(found.line)
                baselines[title(task)] = found.baseline
    if panels:
        page.figure(
            "learning_rate",
            "Best score at each learning rate, mean and standard error over seeds",
            plots.lines(panels, "learning rate", "score, times 100", baselines),
        )
    page.table(["task", "", "learning rate", "score", "runs"], rows)
    page.text(
        "The paper shows learning rates of 2e-5 to 1e-3, and the best score at each."
    )
    return page


EXPERIMENT = Experiment(
    about="The best score at each learning rate, adapters and full fine-tuning.",
    base="BERT-base",
    tasks={PAPER: ("mnli", "cola"), SMALL: ("cola",)},
    seeds={PAPER: (1, 2, 3), SMALL: (1,)},
    jobs=_jobs,
    report=_report,
)
