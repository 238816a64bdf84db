"""Which training runs learn: learning rates, Adam's moments plain or corrected, seeds.

Not of the paper. A seed learned where its accuracy, or the task's headline where there
is none, is more than 0.05 above the baseline's.
"""

from experiments import pages, plots, selection
from experiments.grid import (
    PAPER,
    PAPER_SCALE,
    SMALL,
    SMALL_SCALE,
    Experiment,
    adapters,
    sweep,
)

MARGIN = 0.05

_RATES = ("3e-4", "1e-3", "3e-3")
_EPOCHS = {PAPER: (3,), SMALL: ()}
_SCALE = {PAPER: PAPER_SCALE, SMALL: SMALL_SCALE}
_NAMES = {False: "plain", True: "corrected"}


def _jobs(study):
    methods = [
        adapters(
            _RATES,
            epochs=_EPOCHS[study.preset],
            scale=_SCALE[study.preset],
            is_corrected=is_corrected,
        )
        for is_corrected in _NAMES
    ]
    return sweep(study, methods)


def _metric(result):
    scores = next(iter(result.sets.values()))["scores"]
    return "accuracy" if "accuracy" in scores else result.metric


def _value(result, entry="scores"):
    """The accuracy of a result, or its headline; None where it has no score."""
    if result.score is None:
        return None
    return next(iter(result.sets.values()))[entry][_metric(result)]


def has_learned(result):
    """Whether a run is well above the baseline."""
    value = _value(result)
    return value is not None and value > _value(result, "baseline") + MARGIN


def _cell(study, task, rate, is_corrected):
    """The jobs of a cell that have ended, and how many there are to be."""
    jobs = [
        job
        for job in study.jobs
        if (job.task, job.learning_rate, job.is_corrected) == (task, rate, is_corrected)
    ]
    return [job for job in jobs if job in study.results], len(jobs)


def _of_task(study, page, task):
    page.heading(task)
    groups: dict = {}
    rows, baseline, metric = [], None, "score"
    for rate in _RATES:
        for is_corrected, moments in _NAMES.items():
            ended, expected = _cell(study, task, rate, is_corrected)
            found = [study.results[job] for job in ended]
            learned = sum(map(has_learned, found))
            summary = selection.summarize(map(_value, found))
            for result in found:
                if result.score is not None:
                    baseline, metric = _value(result, "baseline"), _metric(result)
            scores = summary.scores if summary else ()
            share = learned / len(found) if found else None
            name = "Adam's moments %s" % moments
            groups.setdefault(name, []).append((share, [100 * s for s in scores]))
            rows.append(
                [
                    rate,
                    moments,
                    "%d of %d" % (learned, len(found)),
                    str(expected - len(found)),
                    " ".join(map(pages.points, scores)),
                    pages.spread(summary),
                ]
            )
    page.table(
        ["learning rate", "moments", "seeds that learned", "missing", metric, "mean"],
        rows,
    )
    if baseline is None:
        return
    page.text("The baseline: %s." % pages.points(baseline))
    page.figure(
        "stability_%s" % task,
        "Share of seeds that learned, and each seed's %s" % metric,
        plots.shares_and_scores(
            _RATES, groups, 100 * baseline, "%s on the dev set, times 100" % metric
        ),
    )


def _report(study):
    page = pages.start_report(study, "Which training runs learn")
    page.text(
        "A seed learned where it is more than %g points above the baseline."
        % (100 * MARGIN)
    )
    for task in study.tasks:
        _of_task(study, page, task)
    return page


EXPERIMENT = Experiment(
    about="The fraction of training runs that learn, with and without bias correction.",
    base="BERT-base",
    tasks={PAPER: ("mrpc", "rte", "cola"), SMALL: ("mrpc",)},
    seeds={PAPER: (1, 2, 3, 4, 5), SMALL: (1, 2, 3)},
    jobs=_jobs,
    report=_report,
)
