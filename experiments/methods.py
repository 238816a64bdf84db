"""Comparison of tuning methods: adapters in three placements, LoRA and others.

Not in the paper: figures 1, 3 and 4 with later methods.
"""

from experiments import grid, trade_off

_FAMILIES = {
    "adapters (Houlsby)": grid.ADAPTERS,
    "adapters (Pfeiffer)": "adapters-pfeiffer",
    "adapters (parallel)": "adapters-parallel",
    "LoRA": grid.LORA,
    "BitFit": grid.BITFIT,
    "layer norms": grid.LAYER_NORM,
    "top layers": grid.TOP_K,
}


def _write_report(study, report):
    report.add_text(
        "For each size, rank and number of layers, the learning rate and the number of "
        "epochs with the highest %s on the dev set. A cross marks a collapsed seed, "
        "which counts in the mean."
        % ("score of seed 1" if study.selects_by_first_seed else "mean")
    )
    report.add_heading("All tasks")
    trade_off.add_all_tasks(study, report, _FAMILIES, "methods_all_tasks")
    report.add_heading("Each task")
    trade_off.add_each_task(study, report, _FAMILIES, "methods_by_task")


def _adapters(rates, sizes, epochs=(), scale=grid.PAPER_SCALE):
    """A `grid.Method` for each placement, initialized as in its source."""
    houlsby = grid.adapters(rates, sizes, epochs, scale)
    return [
        houlsby,
        houlsby._replace(placement="pfeiffer", init_scale="0.02"),
        houlsby._replace(placement="parallel", init_scale=""),
    ]


_PAPER = (grid.PAPER_RATES, grid.PAPER_EPOCHS)
_POWERS = tuple(2**n for n in range(10))
_PAPER_METHODS = [
    grid.Method(grid.FULL, *_PAPER),
    *_adapters(grid.PAPER_RATES, _POWERS, grid.PAPER_EPOCHS),
    *grid.make_methods(grid.LORA, _POWERS, *_PAPER),
    grid.Method(grid.BITFIT, *_PAPER),
    grid.Method(grid.LAYER_NORM, *_PAPER),
    *grid.make_methods(grid.TOP_K, range(1, 13), *_PAPER),
]
# Fewer trained parameters need higher learning rates.
_LOW, _HIGH = ("3e-5", "1e-4", "3e-4"), ("3e-4", "1e-3", "3e-3")
_HIGHEST = ("1e-3", "3e-3", "1e-2")
_SMALL_METHODS = [
    method._replace(is_corrected=True)
    for method in (
        grid.Method(grid.FULL, _LOW),
        *_adapters(_HIGH, (8, 64), scale=grid.SMALL_SCALE),
        *grid.make_methods(grid.LORA, (8, 64), _HIGH),
        grid.Method(grid.BITFIT, _HIGHEST),
        grid.Method(grid.LAYER_NORM, _HIGHEST),
        *grid.make_methods(grid.TOP_K, (1, 2), _LOW),
    )
]
EXPERIMENT = grid.Experiment(
    title="Comparison of tuning methods",
    about="Adapters in three placements, LoRA, BitFit and others (not in the paper).",
    paper=grid.Preset(grid.GLUE, 3, _PAPER_METHODS),
    small=grid.Preset(("mrpc", "rte", "sts-b", "cola"), 3, _SMALL_METHODS, True),
    write_report=_write_report,
)
