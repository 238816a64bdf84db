"""What convert_checkpoint.py writes for transformers, run there and here."""

import os
import shutil

import hf_layout
import numpy as np
import pytest
import torch
import transformers

import tokenization
from exchange import conversion
from tests import small_packages
from tests.exchange import test_recorded
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


@pytest.mark.parametrize(
    "model_class, count",
    [
        (transformers.BertForSequenceClassification, 3),
        (transformers.BertForSequenceClassification, 1),
        (transformers.BertForQuestionAnswering, 2),
    ],
)
def test_models_with_their_heads(tmp_path, model_class, count):
    """A model that transformers saved, as a checkpoint, and as a model again."""
    source = hf_layout.write_encoder(tmp_path / "in")
    torch.manual_seed(1)
    model = model_class.from_pretrained(source, num_labels=count).eval()
    saved = tmp_path / "saved"
    model.save_pretrained(str(saved))
    shutil.copy(os.path.join(source, "vocab.txt"), saved)
    checkpoint = tmp_path / "checkpoint"
    conversion.convert(str(saved), str(checkpoint), True, keep_head=True)
    base = test_recorded.base_files(checkpoint)
    conversion.write_model(base, str(tmp_path / "theirs"), keep_head=True)
    again, info = model_class.from_pretrained(
        str(tmp_path / "theirs"), output_loading_info=True
    )
    assert not info["missing_keys"] and not info["mismatched_keys"]
    # Question answering has no pooler there.
    assert all(".pooler." in name for name in info["unexpected_keys"])
    assert model.state_dict().keys() == again.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    # The head is that of the project's task type.
    names = {
        "classifier": ("output_weights", "output_bias"),
        "qa_outputs": ("cls/squad/output_weights", "cls/squad/output_bias"),
    }
    layer = "classifier" if count != 2 else "qa_outputs"
    stored = checkpoints.Checkpoint(base.init_checkpoint)
    for name, part in zip(names[layer], ("weight", "bias")):
        wanted = model.state_dict()["%s.%s" % (layer, part)].numpy()
        np.testing.assert_array_equal(stored.read_value(name), wanted)


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
