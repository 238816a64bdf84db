"""Figure 6, right: the standard deviation of the adapters' initial weights."""

from experiments import grid, reports


def _write_report(study, report):
    axis = ("initial scale", "standard deviation of the initial weights")
    caption = "Score on the dev set, mean and standard error over seeds"
    reports.add_curves(report, study, "init_scale", axis, caption)
    report.add_text("The paper: flat below 1e-2, worse above, most of all on CoLA.")


_PAPER_METHODS = [
    grid.adapters(grid.PAPER_RATES, epochs=grid.PAPER_EPOCHS, scale=scale)
    for scale in ("1e-7", "1e-6", "1e-5", "1e-4", "1e-3", "1e-2", "1e-1", "1")
]
_SMALL_METHODS = [
    grid.small_adapters()._replace(init_scale=scale)
    for scale in ("1e-7", "1e-5", "1e-3", "1e-2", "1e-1", "1")
]
EXPERIMENT = grid.Experiment(
    title="Figure 6, right: the initial scale",
    about="The adapters' initial standard deviation, 1e-7 to 1.",
    paper=grid.Preset(("mnli", "cola"), 3, _PAPER_METHODS),
    small=grid.Preset(("cola",), 2, _SMALL_METHODS),
    write_report=_write_report,
)
