"""Trains the same encoder on the same data with PyTorch and AdapterHub's `adapters`.

Run by benchmarks/compare.py in a separate virtual environment. Houlsby's placement,
bottleneck 64, gelu; adapters, layer norms and head trained; AdamW with warm-up and
linear decay; batches shuffled and padded to their longest example.
"""

import argparse
import csv
import os
import random
import time

import adapters
import torch
import transformers

# The README's recipe.
ADAPTER_SIZE, BATCH_SIZE, MAX_SEQ_LENGTH, LEARNING_RATE = 64, 32, 128, 3e-4


def read_rows(data_dir):
    """MRPC's training set: (first text, second text, label)."""
    with open(os.path.join(data_dir, "train.tsv"), encoding="utf-8-sig") as reader:
        lines = list(csv.reader(reader, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [(line[3], line[4], int(line[0])) for line in lines[1:]]


def build_model(encoder_dir):
    """The encoder with adapters and a head, all else frozen."""
    model = adapters.AutoAdapterModel.from_pretrained(encoder_dir)
    config = adapters.DoubleSeqBnConfig(
        reduction_factor=model.config.hidden_size / ADAPTER_SIZE, non_linearity="gelu"
    )
    model.add_adapter("task", config=config)
    model.add_classification_head("task", num_labels=2, layers=1)
    model.train_adapter("task")
    for name, parameter in model.named_parameters():
        if "LayerNorm" in name:
            parameter.requires_grad = True
    return model.train()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder_dir", required=True)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--epochs", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(1)
    random.seed(1)

    rows = read_rows(arguments.data_dir)
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.encoder_dir)
    model = build_model(arguments.encoder_dir)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, LEARNING_RATE)
    per_epoch = len(rows) // BATCH_SIZE
    steps = per_epoch * arguments.epochs
    schedule = transformers.get_linear_schedule_with_warmup(
        optimizer, steps // 10, steps
    )
    # Tokenized before the clock runs, as in the other program.
    encoded = tokenizer(
        [first for first, _, _ in rows],
        [second for _, second, _ in rows],
        truncation=True,
        max_length=MAX_SEQ_LENGTH,
    )
    done = 0
    for _ in range(arguments.epochs):
        order = random.sample(range(len(rows)), len(rows))
        for start in range(per_epoch):
            chosen = order[start * BATCH_SIZE :][:BATCH_SIZE]
            batch = tokenizer.pad(
                {name: [column[i] for i in chosen] for name, column in encoded.items()},
                return_tensors="pt",
            )
            labels = torch.tensor([rows[i][2] for i in chosen])
            with torch.autocast(
                "cpu", torch.bfloat16, enabled=arguments.precision == "bfloat16"
            ):
                logits = model(**batch).logits
            loss = torch.nn.functional.cross_entropy(logits.float(), labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            done += 1
            if done == 1:  # The first step also warms up.
                started = time.perf_counter()
    seconds = time.perf_counter() - started
    print((done - 1) * BATCH_SIZE / seconds)  # Examples per second, for compare.py.


if __name__ == "__main__":
    main()
