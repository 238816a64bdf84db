"""What convert_checkpoint.py writes for transformers, run there and here."""

import os

import hf_layout
import numpy as np
import pytest
import torch
import transformers

import tokenization
from exchange import conversion
from tests import small_packages
from tests.exchange.test_conversion import converted_bert
from weights import adapter_package, base_model, checkpoints, model_variables


def theirs(folder, batch):
    """Sequence and pooled output of transformers' BertModel."""
    model = transformers.BertModel.from_pretrained(folder).eval()
    ids, mask, types = (torch.tensor(part) for part in batch)
    with torch.no_grad():
        output = model(ids, attention_mask=mask, token_type_ids=types)
    return output.last_hidden_state.numpy(), output.pooler_output.numpy()


@pytest.mark.parametrize("activation", ["gelu_new", "relu", "tanh"])
def test_base(tmp_path, activation):
    config = dict(hf_layout.CONFIG, hidden_act=activation)
    source = hf_layout.write_encoder(tmp_path / "in", config)
    conversion.convert(source, str(tmp_path / "ours"))
    base = base_model.BaseFiles(
        *(
            str(tmp_path / "ours" / name)
            for name in ("bert_model.ckpt", "bert_config.json", "vocab.txt")
        )
    )
    conversion.write_model(base, str(tmp_path / "theirs"))
    batch = hf_layout.random_batch(config)
    ours = converted_bert(str(tmp_path / "ours"), batch)
    found = theirs(str(tmp_path / "theirs"), batch)
    # Outputs at padding are of no use to anyone, and not the same.
    mask = batch[1][:, :, None]
    np.testing.assert_allclose(found[0] * mask, ours[0] * mask, rtol=0, atol=2e-5)
    np.testing.assert_allclose(found[1], ours[1], rtol=0, atol=2e-5)
    # The weights are told there to be all of the model, and no more.
    _, info = transformers.BertModel.from_pretrained(
        str(tmp_path / "theirs"), output_loading_info=True
    )
    assert not any(info.values()), info


def test_layer_norms_of_a_package(tmp_path):
    flags = small_packages.write_base(tmp_path / "base")
    base = base_model.BaseFiles(**flags)
    task = small_packages.FOUR_TASKS[0]
    folder = small_packages.write_package(tmp_path / "package", flags, task)
    package = adapter_package.read(folder)
    conversion.write_model(base, str(tmp_path / "plain"))
    conversion.write_model(base, str(tmp_path / "merged"), folder)
    # The package without its adapters, in a checkpoint.
    names = list(model_variables.frozen_shapes(package.bert_config))
    values = dict(checkpoints.Checkpoint(base.init_checkpoint).iterate_values(names))
    values.update((n, v) for n, v in package.weights.items() if "LayerNorm" in n)
    ours = tmp_path / "ours"
    ours.mkdir()
    os.link(base.bert_config_file, str(ours / "bert_config.json"))
    checkpoints.write(str(ours / "bert_model.ckpt"), values)
    inputs = small_packages.random_batch(3, 8)
    batch = (inputs["input_ids"], inputs["input_mask"], inputs["segment_ids"])
    wanted = converted_bert(str(ours), batch)[1]
    np.testing.assert_allclose(
        theirs(str(tmp_path / "merged"), batch)[1], wanted, rtol=0, atol=2e-5
    )
    assert np.abs(theirs(str(tmp_path / "plain"), batch)[1] - wanted).max() > 0.1


@pytest.mark.parametrize("lower", [True, False])
def test_tokenizer(tmp_path, lower):
    tokens = [*hf_layout.TOKENS[:-2], "B", "é"]
    source = hf_layout.write_encoder(tmp_path / "in", tokens=tokens)
    conversion.convert(source, str(tmp_path / "ours"))
    base = base_model.BaseFiles(
        *(
            str(tmp_path / "ours" / name)
            for name in ("bert_model.ckpt", "bert_config.json", "vocab.txt")
        )
    )
    output = str(tmp_path / "theirs")
    conversion.write_model(base, output, do_lower_case=lower)
    text = "ab B\u00e9 a, c"
    ours = tokenization.FullTokenizer(base.vocab_file, lower).tokenize(text)
    for kind in (transformers.BertTokenizer, transformers.AutoTokenizer):
        assert kind.from_pretrained(output).tokenize(text) == ours
