"""Figure 7: the best score at each learning rate, adapters and full fine-tuning."""

import optimization
from experiments import grid, pages

_RATES = {
    grid.PAPER: ("2e-5", "5e-5", "1e-4", "2e-4", "5e-4", "1e-3"),
    grid.SMALL: ("3e-5", "1e-4", "3e-4", "1e-3", "3e-3"),
}


def _jobs(study):
    rates = _RATES[study.preset]
    if study.preset == grid.PAPER:
        full = grid.Method(optimization.FULL, rates, grid.PAPER_EPOCHS)
        methods = [full, grid.adapters(rates, epochs=grid.PAPER_EPOCHS)]
    else:
        plain = (
            grid.Method(optimization.FULL, rates),
            grid.adapters(rates, scale=grid.SMALL_SCALE),
        )
        corrected = (method._replace(is_corrected=True) for method in plain)
        methods = [*plain, *corrected]
    return grid.sweep(study, methods)


def _report(study):
    def line_of(job):
        is_full = job.policy == optimization.FULL
        name = "full fine-tuning" if is_full else "adapters"
        if study.preset == grid.PAPER:
            return name
        return "%s, moments %s" % (name, "corrected" if job.is_corrected else "plain")

    page = pages.start_report(study, "Figure 7: learning rates")
    pages.add_curves(
        page,
        study,
        name="learning_rate",
        caption="Best score at each learning rate, mean and standard error over seeds",
        axis=("learning rate", "learning rate"),
        values=_RATES[study.preset],
        value_of=lambda job: job.learning_rate,
        line_of=line_of,
    )
    page.text(
        "The paper shows learning rates of 2e-5 to 1e-3, and the best score at each."
    )
    return page


EXPERIMENT = grid.Experiment(
    about="The best score at each learning rate, adapters and full fine-tuning.",
    tasks={grid.PAPER: ("mnli", "cola"), grid.SMALL: ("cola",)},
    seeds={grid.PAPER: (1, 2, 3), grid.SMALL: (1,)},
    jobs=_jobs,
    report=_report,
)
