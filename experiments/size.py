"""Figures 1, 3 and 4: scores by trained parameters."""

from experiments import grid, trade_off

_FAMILIES = {
    "adapters": grid.ADAPTERS,
    "top layers": grid.TOP_K,
    "layer norms": grid.LAYER_NORM,
}
_PAPER = (grid.PAPER_RATES, grid.PAPER_EPOCHS)


def _write_report(study, report):
    report.add_text(
        "For each size, and each number of layers, the setting with the highest mean "
        "on the dev set."
    )
    report.add_heading("All tasks (figures 1 and 3)")
    trade_off.add_all_tasks(study, report, _FAMILIES, "size_all_tasks")
    report.add_heading("Each task (figure 4)")
    trade_off.add_each_task(study, report, _FAMILIES, "size_by_task")
    report.add_text(
        "The paper, MNLI-m, BERT-base: top layer alone (9M parameters) 77.8, adapters "
        "of size 64 (2M) 83.7, full fine-tuning 84.4. Layer norms alone (40k): about "
        "3.5 points below full fine-tuning on CoLA, 4 on MNLI."
    )


_PAPER_METHODS = [
    grid.Method(grid.FULL, *_PAPER),
    *grid.make_methods(grid.TOP_K, range(1, 13), *_PAPER),
    grid.Method(grid.LAYER_NORM, *_PAPER),
    grid.adapters(grid.PAPER_RATES, tuple(2**n for n in range(10)), grid.PAPER_EPOCHS),
]
_SMALL_METHODS = [
    grid.Method(grid.FULL, ("1e-4",), is_corrected=True),
    *grid.make_methods(grid.TOP_K, (1, 2, 3), ("1e-4",), is_corrected=True),
    grid.Method(grid.LAYER_NORM, ("1e-3",), is_corrected=True),
    grid.small_adapters(sizes=(1, 8, 64, 256)),
]
EXPERIMENT = grid.Experiment(
    title="Size against quality: figures 1, 3 and 4",
    about="Adapter sizes, top layers and layer norms against full fine-tuning.",
    paper=grid.Preset(grid.GLUE, 3, _PAPER_METHODS),
    small=grid.Preset(("mrpc", "cola"), 2, _SMALL_METHODS),
    write_report=_write_report,
)
