"""Made-up results of jobs."""

from experiments import results


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
