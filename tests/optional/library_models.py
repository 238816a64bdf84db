"""Small models of transformers with adapters of `adapters` and peft.

`python -m tests.optional.library_models` writes what they save and compute to
tests/data/exchange, for tests without these libraries.
"""

import json
import os
import shutil
import tempfile

import adapters
import numpy as np
import peft
import torch
import transformers

from tests import hf_layout
from tests.places import ROOT

DATA = ROOT / "tests" / "data" / "exchange"
BATCH = hf_layout.random_batch(hf_layout.CONFIG)
LABELS = {0: "a", 1: "b", 2: "c"}
_CLASSIFIER = transformers.BertForSequenceClassification
_ANSWERER = transformers.BertForQuestionAnswering


def compute_logits(model):
    """float32 [B, L] of a classifier, [B, 2, S] of question answering."""
    if isinstance(model, peft.PeftModelForQuestionAnswering):
        # Its own `forward` drops the segment ids.
        model = model.base_model
    ids, mask, types = (torch.tensor(part) for part in BATCH)
    with torch.no_grad():
        output = model.eval()(ids, attention_mask=mask, token_type_ids=types)
    if "start_logits" in output:
        return torch.stack([output.start_logits, output.end_logits], dim=1).numpy()
    return output.logits.numpy()


def _randomize(model, seed, is_own):
    """Sets the parameters whose names `is_own` accepts to values that matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if is_own(name):
                value.normal_(std=0.5, generator=generator)


def make_peft(base, folder, seed, model_class=_CLASSIFIER, count=3, **settings):
    """Saves LoRA of random weights on the encoder `base`; returns its model."""
    is_answerer = model_class is _ANSWERER
    model = model_class.from_pretrained(base, num_labels=2 if is_answerer else count)
    config = peft.LoraConfig(
        task_type="QUESTION_ANS" if is_answerer else "SEQ_CLS", **{"r": 2, **settings}
    )
    model = peft.get_peft_model(model, config)
    names = {name for name, value in model.named_parameters() if value.requires_grad}
    _randomize(model, seed, names.__contains__)
    model.save_pretrained(folder)
    return model


def load_peft(base, folder, head):
    """The model of `head`, a `heads.Head`, with LoRA from a folder."""
    model_class = getattr(transformers, head.kind.model_class)
    model = model_class.from_pretrained(base, num_labels=len(head.bias))
    return peft.PeftModel.from_pretrained(model, folder)


def make_adapter(base, folder, seed, config, add_head):
    """Saves an adapter of random weights on the encoder `base`; returns its model."""
    model = adapters.BertAdapterModel.from_pretrained(base)
    model.add_adapter("mine", config=config)
    add_head(model)
    _randomize(model, seed, lambda name: ".mine." in name)
    model.set_active_adapters("mine")
    model.save_adapter(folder, "mine", use_safetensors=True)
    return model


def make_static(base, folder, seed, config, model_class, count):
    """The same with a model class of transformers."""
    model = model_class.from_pretrained(base, num_labels=count)
    adapters.init(model)
    model.add_adapter("mine", config=config)
    _randomize(
        model, seed, lambda name: ".mine." in name or not name.startswith("bert.")
    )
    model.set_active_adapters("mine")
    model.save_adapter(folder, "mine", use_safetensors=True, with_head=True)
    return model


def load_adapter(base, folder):
    """A model with an adapter from a folder; nothing in it may be left over."""
    model = adapters.BertAdapterModel.from_pretrained(base)
    info = {}
    name = model.load_adapter(folder, use_safetensors=True, loading_info=info)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    model.set_active_adapters(name)
    return model


def _pooled(model):
    model.add_classification_head(
        "mine", num_labels=3, layers=1, use_pooler=True, id2label=LABELS
    )


def _default(model):
    model.add_classification_head("mine", num_labels=3, id2label=LABELS)


def _hidden(model):
    model.add_classification_head(
        "mine",
        num_labels=3,
        use_pooler=True,
        activation_function="relu",
        id2label=LABELS,
    )


def _first(model):
    model.add_classification_head("mine", num_labels=1, layers=1)


def _number(model):
    model.add_classification_head("mine", num_labels=1, layers=1, use_pooler=True)


def _questions(model):
    model.add_qa_head("mine")


_EACH = {"layers_to_transform": [1], "layers_pattern": "layer"}
_PATTERNS = {
    "rank_pattern": {"value": 3, "layer.1.attention.self.query": 1},
    "alpha_pattern": {"^bert.encoder.layer.0.attention.self.value": 5},
}
_DOUBLE = adapters.DoubleSeqBnConfig(reduction_factor=3)
_LORA = adapters.LoRAConfig(
    r=2,
    attn_matrices=["k", "v"],
    intermediate_lora=True,
    output_lora=True,
    leave_out=[0],
)
# Name -> function of base, folder and seed that returns a model.
CASES = {
    "peft_default": make_peft,
    "peft_number": lambda *given: make_peft(*given, count=1),
    "peft_questions": lambda *given: make_peft(*given, model_class=_ANSWERER),
    "peft_all": lambda *given: make_peft(
        *given, target_modules="all-linear", exclude_modules=["bert.pooler.dense"]
    ),
    "peft_rslora": lambda *given: make_peft(*given, use_rslora=True, lora_alpha=3),
    "peft_one_layer": lambda *given: make_peft(
        *given, target_modules=["query", "intermediate.dense"], **_EACH
    ),
    "peft_patterns": lambda *given: make_peft(*given, **_PATTERNS),
    "hub_double": lambda *given: make_adapter(*given, _DOUBLE, _pooled),
    "hub_double_number": lambda *given: make_adapter(*given, _DOUBLE, _number),
    "hub_double_questions": lambda *given: make_adapter(*given, _DOUBLE, _questions),
    "hub_pfeiffer": lambda *given: make_adapter(
        *given, adapters.SeqBnConfig(reduction_factor=3), _pooled
    ),
    "hub_pfeiffer_scaled": lambda *given: make_adapter(
        *given,
        adapters.SeqBnConfig(
            reduction_factor={"0": 6, "default": 2}, scaling="channel"
        ),
        _questions,
    ),
    "hub_parallel": lambda *given: make_adapter(
        *given, adapters.ParBnConfig(reduction_factor=3), _pooled
    ),
    "hub_parallel_scaled": lambda *given: make_adapter(
        *given,
        adapters.ParBnConfig(reduction_factor=4, scaling=0.5, leave_out=[0]),
        _number,
    ),
    "hub_head_default": lambda *given: make_adapter(*given, _DOUBLE, _default),
    "hub_head_hidden": lambda *given: make_adapter(
        *given, adapters.LoRAConfig(r=2), _hidden
    ),
    "hub_head_first_number": lambda *given: make_adapter(
        *given, adapters.SeqBnConfig(reduction_factor=3), _first
    ),
    "hub_lora": lambda *given: make_adapter(
        *given, adapters.LoRAConfig(r=3, alpha=5), _pooled
    ),
    "hub_lora_all": lambda *given: make_adapter(*given, _LORA, _questions),
    "hub_static_labels": lambda *given: make_static(*given, _DOUBLE, _CLASSIFIER, 3),
    "hub_static_questions": lambda *given: make_static(*given, _DOUBLE, _ANSWERER, 2),
}


def make(name, folder, seed=0):
    """Runs a case; returns the folders of encoder and adapter, and the logits."""
    base, saved = os.path.join(folder, "base"), os.path.join(folder, "saved")
    weights = hf_layout.random_weights(hf_layout.CONFIG, seed)
    os.makedirs(base)
    hf_layout.write_encoder(type(ROOT)(base), weights=weights)
    return base, saved, compute_logits(CASES[name](base, saved, seed))


def main():
    logits = {}
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            base, saved, logits[name] = make(name, folder)
            shutil.rmtree(DATA / name, ignore_errors=True)
            shutil.copytree(
                saved, DATA / name, ignore=shutil.ignore_patterns("README.md")
            )
            for path in (DATA / name).glob("*.json"):
                config = json.loads(path.read_text().replace(base, "base"))
                if isinstance(config.get("target_modules"), list):
                    config["target_modules"].sort()  # It was a set.
                path.write_text(json.dumps(config, indent=2) + "\n")
    np.savez(DATA / "logits.npz", **logits)


if __name__ == "__main__":
    main()
