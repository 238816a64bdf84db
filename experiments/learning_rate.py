"""Figure 7: the best score at each learning rate, adapters and full fine-tuning."""

from experiments import grid, reports

_RATES = ("2e-5", "5e-5", "1e-4", "2e-4", "5e-4", "1e-3")
_SMALL_RATES = ("3e-5", "1e-4", "3e-4", "1e-3", "3e-3")


def _write_report(study, report):
    axis = ("learning rate", "learning rate")
    caption = "Best score at each learning rate, mean and standard error over seeds"
    reports.add_curves(report, study, "learning_rate", axis, caption)
    report.add_text(
        "The paper shows learning rates of 2e-5 to 1e-3, and the best score at each."
    )


_PAPER_METHODS = [
    grid.Method(grid.FULL, _RATES, grid.PAPER_EPOCHS),
    grid.adapters(_RATES, epochs=grid.PAPER_EPOCHS),
]
_SMALL_METHODS = [
    method._replace(is_corrected=is_corrected)
    for is_corrected in (False, True)
    for method in (
        grid.Method(grid.FULL, _SMALL_RATES),
        grid.adapters(_SMALL_RATES, scale=grid.SMALL_SCALE),
    )
]
EXPERIMENT = grid.Experiment(
    title="Figure 7: learning rates",
    about="The best score at each learning rate, adapters and full fine-tuning.",
    paper=grid.Preset(("mnli", "cola"), 3, _PAPER_METHODS),
    small=grid.Preset(("cola",), 1, _SMALL_METHODS),
    write_report=_write_report,
)
