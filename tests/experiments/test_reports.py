"""The numbers of each report, on made-up results, compared with hand calculations."""

from experiments import reports, results
from experiments.catalogue import EXPERIMENTS
from tests.made_up_results import make_study, result


def report(name, words, result_of, **changed):
    """The text of a report; `result_of` maps a job to its `Result` or None."""
    study = make_study(name, *words)._replace(**changed)
    jobs = tuple(EXPERIMENTS[name].jobs(study))
    known = {job: result_of(job) for job in jobs}
    known = {job: each for job, each in known.items() if each is not None}
    page = reports.Report(name)
    EXPERIMENTS[name].write_report(study._replace(jobs=jobs, results=known), page)
    return page.markdown


def with_parameters(score, trained, **rest):
    parameters = {"trained": trained, "base": 1000, "share": trained / 1000}
    return result(score, parameters=parameters, **rest)


def test_ablation():
    accuracy = {"": 0.8, "0": 0.76, "1": 0.8, "0-1": 0.4}

    def result_of(job):
        # The second seed loses twice as much without the first layer.
        less = 0.04 if (job.seed, job.without) == (2, "0") else 0
        return result(0.1, metric="matthews", accuracy=accuracy[job.without] - less)

    words = ["--preset=small", "--tasks=CoLA", "--seeds=2"]
    page = report("ablation", words, result_of, layers=2)
    # All, worst single, lower half, upper half, all taken out.
    assert "| CoLA | 80.0 ± 0.0 | -7.5 % | -7.5 % | 0.0 % | -50.0 % |" in page
    # A single layer has no lower half.
    page = report("ablation", words, result_of, layers=1)
    assert "| CoLA | 80.0 ± 0.0 | -7.5 % | - | -7.5 % | -7.5 % |" in page


def test_size():
    full = {"mrpc": 0.9, "cola": 0.6, "rte": 0.7}
    below = {"mrpc": 0.02, "cola": 0.01, "rte": 0.03}

    def result_of(job):
        if job.policy == "full":
            return with_parameters(full[job.task], 1000)
        if (job.policy, job.task) == ("layer_norm", "rte"):
            return None
        # Its seeds are 0.01 below and above the mean.
        score = full[job.task] - below[job.task] + (-0.01, 0.01)[job.seed - 1]
        return with_parameters(score, 10 + job.adapter_size)

    page = report("size", ["--preset=small", "--tasks=MRPC,CoLA,RTE"], result_of)
    # Percentiles of -3, -2 and -1.
    assert "| adapters 64 | 74 | -2.6 | -2.0 | -1.4 |" in page
    assert "| top layers 3 | 10 | -2.6 | -2.0 | -1.4 |" in page
    # No percentiles: layer norms have no result for RTE.
    assert "| layer norms | 10 | -" not in page
    assert "| MRPC | full fine-tuning | 1e-4, 5 | 1,000 | 90.0 ± 0.0 | 0 | 2 of" in page
    assert "| MRPC | adapters 8 | 1e-3, 5 | 18 | 88.0 ± 1.0 | -2.0 ± 1.0 | 2" in page
    assert "| CoLA | layer norms | 1e-3, 3 | 10 | 59.0 ± 1.0 | -1.0 ± 1.0 | 2" in page


def test_table2():
    dev = {"full": 0.8, "top_k:1": 0.7, "top_k:2": 0.75, 8: 0.78, 64: 0.76}
    trained = {"full": 1000, "top_k:1": 100, "top_k:2": 200, 8: 5, 64: 50}

    def result_of(job):
        key = job.adapter_size or job.policy
        # The order on the test set is the reverse of that on the dev set.
        test = 1.4 - dev[key] + (0.02 if job.task == "news" else 0)
        return with_parameters(dev[key], trained[key], test_scores={"f1": test})

    words = ["--preset=small", "--task_configs=a/mail.json,a/news.json", "--tasks="]
    page = report("table2", words, result_of)
    assert "epochs, top 2 | 75.0 ± 0.0 | 65.0 ± 0.0 | 200 | 4 of 4 ended |" in page
    assert "epochs, size 8 | 78.0 ± 0.0 | 62.0 ± 0.0 | 5 | 4 of 4 ended |" in page
    assert "| full fine-tuning | 61.0 | 2x | 73.7 | 17x |" in page
    assert "| the best number of top layers | 66.0 | 1.4x | 74.0 | 9.9x |" in page
    assert "| adapters of the best size | 63.0 | 1.01x | 73.3 | 1.19x |" in page


def test_learning_rate():
    def result_of(job):
        # 20 epochs are better, but not with full fine-tuning.
        more = 0.05 if (job.epochs == 20) == (job.adapter_size > 0) else 0
        return result(0.7 + more + 0.01 * job.seed)

    words = ["--preset=paper", "--tasks=RTE"]
    page = report("learning_rate", words, result_of)
    assert "| RTE | adapters | 2e-5 | 77.0 ± 0.6 | 6 of 6 ended |" in page
    assert "| RTE | full fine-tuning | 1e-3 | 77.0 ± 0.6 | 6 of 6 ended |" in page
    page = report("learning_rate", ["--preset=small"], result_of)
    assert "| CoLA | adapters, uncorrected | 3e-3 | 71.0 | 1 of 1 ended |" in page


def test_stability():
    scores = (0.5, 0.55, 0.56)

    def result_of(job):
        if job.learning_rate == "1e-3":
            return None
        if not job.is_corrected:
            return result(0.5, results.COLLAPSED)
        if job.learning_rate == "3e-3" and job.seed > 1:
            return result(None, results.REPEATED[job.seed - 2])
        # Accuracy says whether it learned, where there is one.
        found = result(0.9, metric="f1")
        entry = {"accuracy": scores[job.seed - 1]}
        sets = {"dev": {"scores": {"f1": 0.9, **entry}, "eval_accuracy": 0.9}}
        sets["dev"]["baseline"] = {"f1": 0.8, "accuracy": 0.5}
        return found._replace(sets=sets)

    page = report("stability", ["--preset=small"], result_of)
    assert "| 3e-4 | with | 1 of 3 | 0 | 50.0 55.0 56.0 | 53.7 ± 1.9 |" in page
    assert "| 3e-4 | without | 0 of 3 | 0 | 50.0 50.0 50.0 | 50.0 ± 0.0 |" in page
    assert "| 1e-3 | without | 0 of 0 | 3 |  | - |" in page
    # One failed, one was interrupted.
    assert "| 3e-3 | with | 0 of 1 | 2 | 50.0 | 50.0 |" in page
    assert "The baseline: 50.0." in page


def test_squad():
    best = {0: 0.7, 2: 0.5, 8: 0.6, 64: 0.8, 256: 0.75}

    def result_of(job):
        score = best[job.adapter_size] + 0.01 * job.seed
        score -= 0.1 if job.learning_rate in ("3e-5", "3e-3") else 0
        found = with_parameters(score, 1000 - job.adapter_size)
        entry = {"scores": {"f1": score, "exact_match": score - 0.2}}
        entry["baseline"] = {"f1": 0.04, "exact_match": 0.03}
        return found._replace(sets={"dev": entry})

    page = report("squad", ["--preset=small"], result_of)
    title = "sample_data/squad"
    row = "| %s | full fine-tuning | 1e-4, 10 | 1,000 | 72.0 ± 0.6 | 0 | 12 of "
    assert row % title in page
    row = "| %s | adapters 64 | 1e-3, 10 | 936 | 82.0 ± 0.6 | +10.0 ± 0.8 | 6 of 6 "
    assert row % title in page
    assert (
        "| adapters | learning rate 1e-3, 10 epochs, size 2 | 51.0 52.0 53.0 | "
        "52.0 ± 0.6 | 32.0 ± 0.6 |"
    ) in page
    assert "| full fine-tuning | learning rate 1e-4, 10 epochs | 71.0 72.0" in page
    assert "| baseline | - | - | 4.0 | 3.0 |" in page


def test_collapsed_seeds_are_marked_in_figures():
    words = ["--preset=small", "--tasks=MRPC"]
    study = make_study("size", *words)
    known = {}
    for job in study.jobs:
        is_collapsed = job.adapter_size == 8 and job.seed == 2
        status = results.COLLAPSED if is_collapsed else results.OK
        known[job] = with_parameters(0.7, 10 + job.adapter_size, status=status)
    figures = {}

    class Report(reports.Report):
        def add_figure(self, name, caption, figure):
            figures[name] = figure

    EXPERIMENTS["size"].write_report(study._replace(results=known), Report("size"))
    figure = figures["size_by_task"]
    lines = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    (cross,) = lines
    assert (list(cross.get_xdata()), list(cross.get_ydata())) == ([18], [70.0])
    (legend,) = figure.legends
    assert "collapsed seed" in [text.get_text() for text in legend.get_texts()]


def test_methods():
    def result_of(job):
        if job.task != "mrpc":
            return None
        score = 0.8 if job.policy == "full" else 0.79
        if job.policy == "lora:8" and job.learning_rate == "1e-3":
            score = 0.85
        status = results.COLLAPSED if job.seed == 2 else results.OK
        return with_parameters(score, 10 + job.adapter_size, status=status)

    page = report("methods", ["--preset=small", "--tasks=MRPC"], result_of)
    assert "| MRPC | adapters (Houlsby) 64 | 3e-4, 5 | 74 | 79.0 ± 0.0 | -1.0" in page
    assert "| MRPC | adapters (Pfeiffer) 8 | 3e-4, 5 | 18 | 79.0" in page
    assert "| MRPC | LoRA 8 | 1e-3, 5 | 10 | 85.0 ± 0.0 | +5.0 ± 0.0 | 9 of 9 " in page
    assert "| BitFit | 10 | -1.0 | -1.0 | -1.0 |" in page
