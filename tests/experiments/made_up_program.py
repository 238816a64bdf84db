"""A made-up program in the place of the jobs' programs, and jobs that run it."""

import json

from experiments import job_flags, results

# Does what the seed says in the file `behaviour`, and leaves the files of a run.
PROGRAM = """
import json, os, sys, time
warnings = []
scores = {"f1": 0.8, "accuracy": 0.7}
baseline = {"f1": 0.6, "accuracy": 0.5}
values = dict(word[2:].split("=", 1) for word in sys.argv[1:])
folder = values["output_dir"]
os.makedirs(folder, exist_ok=True)
here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "calls"), "a") as log:
    names = ("CUDA_VISIBLE_DEVICES", "TF_FORCE_GPU_ALLOW_GROWTH")
    gpu = [os.environ.get(name) for name in names]
    log.write(json.dumps([os.path.basename(folder), gpu, os.listdir(folder)]) + chr(10))
with open(os.path.join(here, "behaviour")) as reader:
    exec(json.load(reader).get(values.get("seed"), ""))
for name in ("train.tf_record", "train.tf_record.key", "model.ckpt-9.index"):
    with open(os.path.join(folder, name), "w") as writer:
        writer.write("x")
without = values.get("ablate_adapter_layers")
if not without:
    os.makedirs(os.path.join(folder, "adapters"), exist_ok=True)
name = "eval_results_without_%s" % without if without else "eval_results"
entry = {"scores": scores, "baseline": baseline}
record = {"sets": {"dev": {"labels": ["0", "1"], "eval_accuracy": 0.7, **entry}}}
record["health"] = {"training": [], "evaluation": warnings}
with open(os.path.join(folder, name + ".json"), "w") as writer:
    json.dump(record, writer)
"""


class Bench:
    """A sweep whose jobs run the made-up program."""

    def __init__(self, folder):
        self._folder = folder
        for name in ("run_classifier.py", "run_squad.py"):
            (folder / name).write_text(PROGRAM)
        self.behave()
        self.settings = job_flags.SweepSettings(
            work_dir=str(folder / "work"),
            glue_dir="glue",
            task_files={},
            flags={"init_checkpoint": "bert/x.ckpt"},
            squad_dir="squad",
        )

    def behave(self, **by_seed):
        behaviour = {name[1:]: code for name, code in by_seed.items()}
        (self._folder / "behaviour").write_text(json.dumps(behaviour))

    def calls(self):
        """(folder, [GPU, memory growth], files in the folder) of each run so far."""
        path = self._folder / "calls"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines()]

    def ran(self):
        return [folder for folder, _, _ in self.calls()]

    def folder(self, job):
        return results.job_folder(self.settings.work_dir, job)
