"""Times the steps of benchmarks/step.py in PyTorch; run by benchmarks/gpu.py.

The model is BertModel of `transformers` with Houlsby's adapters after both sublayers.
Adapters, layer norms and head are trained.
"""

import argparse
import json
import re
import resource
import statistics
import time

import numpy as np
import torch
import transformers
from torch import nn

LABELS = 2
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Substrings of variable names, from PyTorch to TensorFlow.
NAMES = {
    "weight": "kernel",
    "dropout.1.down.kernel": "adapters.weights1",
    "dropout.1.down.bias": "adapters.biases1",
    "dropout.1.up.kernel": "adapters.weights2",
    "dropout.1.up.bias": "adapters.biases2",
    "LayerNorm.kernel": "LayerNorm.gamma",
    "LayerNorm.bias": "LayerNorm.beta",
    "embeddings.kernel": "embeddings",
    "head.kernel": "output_weights",
    "head.bias": "output_bias",
    "layer.": "layer_",
}


class Adapter(nn.Module):
    """A bottleneck adapter of float [..., H]."""

    def __init__(self, hidden_size, adapter_size):
        super().__init__()
        self.down = nn.Linear(hidden_size, adapter_size)
        self.up = nn.Linear(adapter_size, hidden_size)

    def forward(self, x):
        return x + self.up(nn.functional.gelu(self.down(x), approximate="tanh"))


class Classifier(nn.Module):
    """BERT with adapters and a head."""

    def __init__(self, sizes):
        super().__init__()
        config = transformers.BertConfig(
            hidden_size=sizes.hidden_size,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            intermediate_size=4 * sizes.hidden_size,
            hidden_act="gelu_pytorch_tanh",
            layer_norm_eps=1e-12,
            attn_implementation="sdpa",
        )
        self.bert = transformers.BertModel(config)
        for layer in self.bert.encoder.layer:
            for sublayer in (layer.attention.output, layer.output):
                adapter = Adapter(sizes.hidden_size, sizes.adapter_size)
                # Residual sum and layer norm follow the dropout.
                sublayer.dropout = nn.Sequential(sublayer.dropout, adapter)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(sizes.hidden_size, LABELS)
        for name, parameter in self.named_parameters():
            is_trained = re.search(r"^head|LayerNorm|dropout\.1", name) is not None
            parameter.requires_grad = is_trained

    def forward(self, ids, mask, segment_ids):
        pooled = self.bert(ids, mask, segment_ids).pooler_output
        return self.head(self.dropout(pooled)).float()


def trained_parameters(model):
    """List of the parameters that are trained."""
    return [each for each in model.parameters() if each.requires_grad]


def load_weights(model, arrays):
    """Loads a dict from TensorFlow's variable name to array."""
    for name, parameter in model.named_parameters():
        for part, replacement in NAMES.items():
            name = name.replace(part, replacement)
        array = torch.from_numpy(arrays[name.replace(".", "/")])
        if name.endswith(("kernel", "weights1", "weights2")):
            array = array.T
        parameter.data.copy_(array.reshape(parameter.shape))


def print_loss(model, path):
    """Prints the evaluation loss with weights and batch of an .npz file."""
    with np.load(path) as arrays:
        load_weights(model, arrays)
        names = ("input_ids", "input_mask", "segment_ids", "label_ids")
        *inputs, labels = (torch.from_numpy(arrays[name]).long() for name in names)
    with torch.inference_mode():
        loss = nn.functional.cross_entropy(model.eval()(*inputs), labels)
    trained = sum(each.numel() for each in trained_parameters(model))
    print(json.dumps({"loss": loss.item(), "trained_parameters": trained}))


def time_step(title, step, arguments):
    """Prints the speed of a synchronous function."""
    started = time.perf_counter()
    step()
    now = time.perf_counter()
    first_step, end = now - started, now + arguments.seconds
    seconds = []
    while now < end:
        started = now
        step()
        now = time.perf_counter()
        seconds.append(now - started)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if DEVICE == "cuda":
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    median = statistics.median(seconds)
    result = {
        "step": title,
        "milliseconds": 1e3 * median,
        "examples_per_second": arguments.batch_size / median,
        "first_step_seconds": first_step,
        "peak_gb": peak / 1e9,
        "torch": torch.__version__,
    }
    print(json.dumps(result), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    sizes = ("hidden_size", "layers", "heads", "adapter_size")
    for name in (*sizes, "batch_size", "seq_length"):
        parser.add_argument("--" + name, type=int, required=True)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--losses", help="Print the loss of this .npz file instead.")
    arguments = parser.parse_args()
    torch.manual_seed(1)
    model = Classifier(arguments)
    if arguments.losses:
        print_loss(model, arguments.losses)
        return
    torch.set_float32_matmul_precision("high")  # TF32, TensorFlow's default
    model.to(DEVICE)
    trained = trained_parameters(model)
    optimizer = torch.optim.AdamW(trained, 3e-4, fused=True)
    shape = (arguments.batch_size, arguments.seq_length)
    ids = torch.randint(model.bert.config.vocab_size, shape, device=DEVICE)
    labels = torch.randint(LABELS, shape[:1], device=DEVICE)
    compute = torch.compile(model) if arguments.compile else model

    def logits():
        is_mixed = arguments.precision == "bfloat16"
        with torch.autocast(DEVICE, torch.bfloat16, enabled=is_mixed):
            return compute(ids, torch.ones_like(ids), torch.zeros_like(ids))

    def train():
        loss = nn.functional.cross_entropy(logits(), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    def predict():
        with torch.inference_mode():
            logits().softmax(-1).cpu()

    time_step("training", train, arguments)
    model.eval()
    time_step("prediction", predict, arguments)


if __name__ == "__main__":
    main()
