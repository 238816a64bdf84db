"""Made-up results of jobs, and studies without files."""

from absl import flags

import reproduce_paper
from experiments import results
from experiments.catalogue import EXPERIMENTS


def make_study(name, *words):
    """The `grid.Study` of an experiment with flags."""
    values = flags.FlagValues()
    reproduce_paper.define_flags(values)
    values([name, *words])
    return reproduce_paper.make_study(EXPERIMENTS[name], values)


def result(score, status=results.OK, metric="f1", **rest):
    """A `results.Result` with a score on the dev set, or none."""
    sets = {}
    if score is not None:
        entry = {"scores": {metric: score}, "baseline": {metric: 0.5}}
        sets["dev"] = dict(entry, eval_accuracy=rest.pop("accuracy", score))
    reason = "" if status == results.OK else "made up"
    parameters = {"trained": 1000, "base": 100_000, "share": 0.01}
    rest = {"parameters": parameters, "seconds": 60.0, "flags": {}, **rest}
    return results.Result(status, reason, metric=metric, sets=sets, **rest)
