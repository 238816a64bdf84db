"""Figure 6, right: the standard deviation of the adapters' initial weights."""

from experiments import grid, pages

_SCALES = {
    grid.PAPER: ("1e-7", "1e-6", "1e-5", "1e-4", "1e-3", "1e-2", "1e-1", "1"),
    grid.SMALL: ("1e-7", "1e-5", "1e-3", "1e-2", "1e-1", "1"),
}
_METHOD = {
    grid.PAPER: grid.adapters(grid.PAPER_RATES, epochs=grid.PAPER_EPOCHS),
    grid.SMALL: grid.small_adapters(),
}


def _jobs(study):
    method = _METHOD[study.preset]
    scales = _SCALES[study.preset]
    return grid.sweep(study, [method._replace(init_scale=scale) for scale in scales])


def _report(study):
    page = pages.start_report(study, "Figure 6, right: the initial scale")
    pages.add_curves(
        page,
        study,
        name="init_scale",
        caption="Score on the dev set, mean and standard error over seeds",
        axis=("initial scale", "standard deviation of the initial weights"),
        values=_SCALES[study.preset],
        value_of=lambda job: job.init_scale,
        line_of=lambda job: "adapters of size 64",
    )
    page.text("The paper: flat below 1e-2, worse above, most of all on CoLA.")
    return page


EXPERIMENT = grid.Experiment(
    about="The adapters' initial standard deviation, 1e-7 to 1.",
    tasks={grid.PAPER: ("mnli", "cola"), grid.SMALL: ("cola",)},
    seeds={grid.PAPER: (1, 2, 3), grid.SMALL: (1, 2)},
    jobs=_jobs,
    report=_report,
)
