"""LoRA's matrices of other libraries, from and to the variables of `tuning.lora`.

Libraries keep a rank and a scaling for each dense layer, and need not update all layers
of the encoder. Here rank, scaling and targets are the same in each.
"""

import collections
from typing import NamedTuple

import numpy as np

import modeling
from exchange import adapter_files
from system import schema
from tuning import lora

ALPHA = schema.number(1e-6, 1e6)  # Scalings are finite, and not 0.


class Update(NamedTuple):
    """The update of a dense layer there: scaling x up down, [n_out, n_in]."""

    down_name: str  # of a float32 tensor [rank, n_in]
    up_name: str  # of a float32 tensor [n_out, rank]
    rank: int
    scaling: float


def target_scopes(layers, targets=lora.TARGETS):
    """The scopes of dense layers, by numbers of layers and names of `lora.TARGETS`."""
    return [
        "bert/encoder/layer_%d/%s" % (index, lora.TARGETS[target])
        for index in layers
        for target in targets
    ]


def import_updates(updates, found, bert_config, folder):
    """Converts a dict from scope to `Update`, of `folder`.

    `found` is a dict from name to array, exactly the tensors of the updates. Returns
    the `lora.Lora`, its variables, and texts on what is represented differently: see
    `adapter_files.complete_variables`, and scalings that differ become part of lora_B.

    A `UserError` is raised if the tensors are others, or a scaled weight is beyond
    float32.
    """
    variables = modeling.encoder_variables(bert_config)
    shapes = {}
    for scope, update in updates.items():
        n_in, n_out = variables[scope + "/kernel"].shape
        shapes[update.down_name] = (update.rank, n_in)
        shapes[update.up_name] = (n_out, update.rank)
    adapter_files.check_shapes(found, shapes, folder)
    rank = max(update.rank for update in updates.values())
    scalings = collections.Counter(update.scaling for update in updates.values())
    alpha = scalings.most_common(1)[0][0] * rank
    if abs(alpha - round(alpha)) < 1e-9 * alpha:
        alpha = float(round(alpha))  # It was divided by the rank.
    ends = {scope.split("/", 3)[3] for scope in updates}
    targets = tuple(name for name, end in lora.TARGETS.items() if end in ends)
    method = lora.Lora(rank, alpha, targets)
    values = {}
    for scope, update in updates.items():
        down, up = (found[name].T.astype(np.float64) for name in update[:2])
        values[scope + "/lora_A"] = down
        values[scope + "/lora_B"] = up * (update.scaling / method.scaling)
    weights, changes = adapter_files.complete_variables(
        values, method, bert_config, folder
    )
    if len(scalings) > 1:
        changes.append(
            "Scalings differed: all are %g, and the rest is part of lora_B."
            % method.scaling
        )
    return method, weights, changes


def export_updates(package, name_tensors):
    """The matrices of a package as tensors: dict from name to array.

    `name_tensors` gives the names of the two matrices of a scope.
    """
    layers = range(package.bert_config.num_hidden_layers)
    return {
        name: np.ascontiguousarray(package.weights["%s/lora_%s" % (scope, letter)].T)
        for scope in target_scopes(layers, package.method.targets)
        for name, letter in zip(name_tensors(scope), "AB")
    }
