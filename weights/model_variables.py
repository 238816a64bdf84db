"""Names and shapes of a model's variables, recorded where the model is built."""

import math
from typing import NamedTuple

import modeling
from tuning import registry


class VariableSet(NamedTuple):
    """Names and shapes of a model's variables, without optimizer slots and step."""

    shapes: dict[str, list[int]]  # of all variables
    collections: dict[str, list[str]]  # names of the trained ones, by collection

    def trained(self):
        """Shapes of the trained variables: dict from name to list of ints, sorted."""
        names = [name for names in self.collections.values() for name in names]
        return {name: self.shapes[name] for name in sorted(names)}

    def frozen(self):
        """Shapes of the frozen variables, see `trained`."""
        names = self.shapes.keys() - self.trained()
        return {name: self.shapes[name] for name in sorted(names)}

    def task_specific(self):
        """Names of the trained variables that a checkpoint of BERT may lack."""
        return [
            name
            for collection in modeling.TRAINED_COLLECTIONS
            for name in self.collections[collection]
        ]

    def parameter_counts(self):
        """Numbers of parameters, a dict.

        It has an entry for each collection, "trained", "total", "base" (all but
        adapters and head, as in the paper's table 1) and "share" (trained / base).
        """
        sizes = {name: math.prod(shape) for name, shape in self.shapes.items()}
        counts = {
            collection: sum(sizes[name] for name in names)
            for collection, names in self.collections.items()
        }
        trained, total = sum(counts.values()), sum(sizes.values())
        base = total - counts[modeling.ADAPTERS] - counts[modeling.HEAD]
        counts.update(trained=trained, total=total, base=base, share=trained / base)
        return counts


def model_variables(bert_config, method=registry.DEFAULT, task_type=None):
    """The `VariableSet` of an encoder, and of the head of a `TaskType`, if given."""
    head = task_type.head_shapes(bert_config.hidden_size) if task_type else {}
    variables = {
        **modeling.encoder_variables(bert_config, method.layer_hooks),
        **{n: modeling.VariableInfo(s, modeling.HEAD) for n, s in head.items()},
    }
    collections = {collection: [] for collection in modeling.TRAINED_COLLECTIONS}
    for name, info in variables.items():
        if method.trains(name, info.collection):
            collections.setdefault(info.collection, []).append(name)
    shapes = {name: info.shape for name, info in variables.items()}
    return VariableSet(shapes, collections)


def frozen_shapes(bert_config):
    """Shapes of the frozen variables of adapter tuning, see `VariableSet.frozen`."""
    return model_variables(bert_config).frozen()
