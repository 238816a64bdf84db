"""Tuning methods by one protocol: adapters in three places, LoRA and others.

Not of the paper: its figures 1, 3 and 4 with methods that came after it.
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


def _report(study, page):
    page.text(
        "For each size, rank and number of layers, the learning rate and the number of "
        "epochs with the highest %s on the dev set. A cross is a collapsed seed of "
        "them, which counts in the mean."
        % ("score of seed 1" if study.selects_by_first_seed else "mean")
    )
    page.heading("All tasks")
    trade_off.add_all_tasks(study, page, _FAMILIES, "methods_all_tasks")
    page.heading("Each task")
    trade_off.add_each_task(study, page, _FAMILIES, "methods_by_task")


def _adapters(rates, sizes, epochs=(), scale=grid.PAPER_SCALE):
    """A `grid.Method` for each placement, initialized as in its source."""
    houlsby = grid.Method(grid.ADAPTERS, rates, epochs, sizes, scale)
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
    *grid.numbered(grid.LORA, _POWERS, *_PAPER),
    grid.Method(grid.BITFIT, *_PAPER),
    grid.Method(grid.LAYER_NORM, *_PAPER),
    *grid.numbered(grid.TOP_K, range(1, 13), *_PAPER),
]
# Fewer parameters take higher rates.
_LOW, _HIGH = ("3e-5", "1e-4", "3e-4"), ("3e-4", "1e-3", "3e-3")
_HIGHEST = ("1e-3", "3e-3", "1e-2")
_SMALL_METHODS = [
    method._replace(is_corrected=True)
    for method in (
        grid.Method(grid.FULL, _LOW),
        *_adapters(_HIGH, (8, 64), scale=grid.SMALL_SCALE),
        *grid.numbered(grid.LORA, (8, 64), _HIGH),
        grid.Method(grid.BITFIT, _HIGHEST),
        grid.Method(grid.LAYER_NORM, _HIGHEST),
        *grid.numbered(grid.TOP_K, (1, 2), _LOW),
    )
]
EXPERIMENT = grid.Experiment(
    title="Tuning methods by one protocol",
    about="Adapters in three places, LoRA, BitFit and others (not of the paper).",
    paper=grid.Preset(grid.GLUE, 3, _PAPER_METHODS),
    small=grid.Preset(("mrpc", "rte", "sts-b", "cola"), 3, _SMALL_METHODS, True),
    report=_report,
)
