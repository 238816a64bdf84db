"""Small adapters in AdapterHub's format, and what they compute."""

import copy
import json
import math

import numpy as np
import tensorflow.compat.v1 as tf
from hf_layout import CONFIG, numpy_bert, random_weights, write_encoder
from safetensors.numpy import save_file
from scipy.special import erf

from exchange import conversion
from training import classifier
from weights import base_model, checkpoints

NAME = "mine"
SIZE = 4
H, LAYERS = CONFIG["hidden_size"], CONFIG["num_hidden_layers"]

# The config files that adapters 1.3.0 writes.
ADAPTER_CONFIG = {
    "config": {
        "adapter_residual_before_ln": False,
        "cross_adapter": False,
        "dropout": 0.0,
        "factorized_phm_W": True,
        "factorized_phm_rule": False,
        "hypercomplex_nonlinearity": "glorot-uniform",
        "init_weights": "bert",
        "init_weights_seed": None,
        "inv_adapter": None,
        "inv_adapter_reduction_factor": None,
        "is_parallel": False,
        "learn_phm": True,
        "leave_out": [],
        "ln_after": False,
        "ln_before": False,
        "mh_adapter": True,
        "non_linearity": "swish",
        "original_ln_after": True,
        "original_ln_before": False,
        "output_adapter": True,
        "phm_bias": True,
        "phm_c_init": "normal",
        "phm_dim": 4,
        "phm_init_range": 0.0001,
        "phm_layer": False,
        "phm_rank": 1,
        "reduction_factor": H / SIZE,
        "residual_before_ln": True,
        "scaling": 1.0,
        "shared_W_phm": False,
        "shared_phm_rule": True,
        "stochastic_depth": 0.0,
        "use_gating": False,
    },
    "hidden_size": H,
    "model_class": "BertAdapterModel",
    "model_name": "",
    "model_type": "bert",
    "name": NAME,
    "version": "adapters.1.3.0",
}
HEAD_CONFIG = {
    "config": {
        "activation_function": "tanh",
        "bias": True,
        "dropout_prob": None,
        "head_type": "classification",
        "label2id": {"no": 0, "maybe": 1, "yes": 2},
        "layers": 1,
        "num_labels": 3,
        "use_pooler": True,
    },
    "hidden_size": H,
    "model_class": "BertAdapterModel",
    "model_name": "",
    "model_type": "bert",
    "name": NAME,
    "version": "adapters.1.3.0",
}
ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "gelu_new": lambda x: (
        0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "linear": lambda x: x,
}


def scopes():
    """All sublayers, by their names there."""
    return [
        "encoder.layer.%d.%s" % (layer, sublayer)
        for layer in range(LAYERS)
        for sublayer in ("attention.output", "output")
    ]


def random_adapter(seed=0, sizes=None, scaling=None):
    """Weights large enough to matter, with a trained scaling of this shape or none.

    `sizes` maps layers to widths; layers that are not in it have no adapters.
    """
    random = np.random.RandomState(seed)
    sizes = dict.fromkeys(range(LAYERS), SIZE) if sizes is None else sizes
    weights = {}
    for scope in scopes():
        size = sizes.get(int(scope.split(".")[2]))
        if not size:
            continue
        prefix = "bert.%s.adapters.%s." % (scope, NAME)
        shapes = {
            "adapter_down.0.weight": (size, H),
            "adapter_down.0.bias": (size,),
            "adapter_up.weight": (H, size),
            "adapter_up.bias": (H,),
        }
        if scaling:
            shapes["scaling"] = scaling
        for name, shape in shapes.items():
            weights[prefix + name] = random.normal(size=shape).astype(np.float32)
    return weights


def random_head(outputs=3, seed=1):
    """Weights of a head."""
    random = np.random.RandomState(seed)
    return {
        "heads.%s.1.weight" % NAME: random.normal(size=(outputs, H)).astype("f4"),
        "heads.%s.1.bias" % NAME: random.normal(size=(outputs,)).astype("f4"),
    }


def changed(stated, **entries):
    """A copy of a config file with other entries in its "config"."""
    stated = copy.deepcopy(stated)
    stated["config"].update(entries)
    return stated


def write_adapter(
    folder,
    config=ADAPTER_CONFIG,
    weights=None,
    head_config=HEAD_CONFIG,
    head_weights=None,
):
    """Writes a folder in AdapterHub's format; returns its path."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    weights = random_adapter() if weights is None else weights
    save_file(weights, str(folder / "adapter.safetensors"))
    if head_config is not None:
        (folder / "head_config.json").write_text(json.dumps(head_config))
        head_weights = random_head() if head_weights is None else head_weights
        save_file(head_weights, str(folder / "model_head.safetensors"))
    return str(folder)


def write_base(folder, seed=0):
    """Writes a base model's checkpoint; returns a `base_model.BaseFiles`."""
    folder.mkdir()
    source = write_encoder(folder / "hf", weights=random_weights(CONFIG, seed))
    output = folder / "checkpoint"
    conversion.convert(source, str(output))
    return base_model.BaseFiles(
        str(output / "bert_model.ckpt"),
        str(output / "bert_config.json"),
        str(output / "vocab.txt"),
    )


def numpy_logits(base_weights, config, weights, head_weights, batch):
    """What AdapterHub's library computes, by numpy in float64: [batch, outputs].

    The weights are dicts from name to array: of the base in Hugging Face's layout, of
    the adapter and of the head. `batch` is what `hf_layout.random_batch` gives.
    """
    config = config["config"]
    activation = ACTIVATIONS[config["non_linearity"]]

    def adapter(scope, x, *_):
        prefix = "bert.%s.adapters.%s." % (scope, NAME)
        if prefix + "adapter_up.bias" not in weights:
            return x
        down, down_bias, up, up_bias = (
            weights[prefix + part].astype(np.float64)
            for layer in ("adapter_down.0.", "adapter_up.")
            for part in (layer + "weight", layer + "bias")
        )
        scaling = weights.get(prefix + "scaling", config["scaling"])
        return x + scaling * (activation(x @ down.T + down_bias) @ up.T + up_bias)

    _, pooled = numpy_bert(CONFIG, base_weights, *batch, adapter)
    head = "heads.%s.1." % NAME
    return pooled @ head_weights[head + "weight"].T + head_weights[head + "bias"]


def package_logits(package, checkpoint, batch):
    """What this project computes: the logits, float32, see `TaskType`.

    `package` is an `AdapterPackage`, `checkpoint` the base model's without file
    endings, and `batch` what `hf_layout.random_batch` gives.
    """
    with tf.Graph().as_default(), tf.Session() as session:
        ids, mask, types = (tf.constant(part, tf.int32) for part in batch)
        task_type = package.task_type
        labels = {
            name: tf.zeros([len(batch[0]), *feature.shape], feature.dtype)
            for name, feature in task_type.feature_spec(batch[0].shape[1]).items()
        }
        output = classifier.create_model(
            package.bert_config,
            False,
            ids,
            mask,
            types,
            task_type.read_label_features(labels),
            task_type.num_outputs,
            use_one_hot_embeddings=False,
            variant=classifier.Variant(task_type, method=package.method),
        )
        variables = {v.op.name: v for v in tf.global_variables()}
        frozen = [name for name in variables if name not in package.weights]
        values = dict(checkpoints.Checkpoint(checkpoint).iterate_values(frozen))
        values.update(package.weights)
        for name, variable in variables.items():
            variable.load(values[name], session)
        return session.run(output.logits)
