"""Heads of other libraries, and the tasks that they are of."""

from typing import NamedTuple

import numpy as np

import glue_data
from errors import UserError, printable
from model import initializers
from system import wording
from tasks import head_form, task_type
from weights import adapter_package


class Head(NamedTuple):
    """A head of C outputs, whose last layer is linear."""

    kind: task_type.LibraryHead
    weights: np.ndarray  # float32 [C, H]
    bias: np.ndarray  # float32 [C]
    labels: list[str] | None = None  # in the order of the outputs; None: not stated
    form: head_form.HeadForm = head_form.DEFAULT
    hidden: tuple[np.ndarray, ...] = ()  # float32 [H, H] and [H], of a hidden layer

    def find_problem(self):
        """The reason why transformers' model class lacks the head, or ""."""
        if self.form == head_form.DEFAULT:
            return ""
        return "an unsupported head, %s" % self.form.describe()


def variable_names():
    """Weights and bias of the default form: dict from `LibraryHead` to a pair."""
    types = [each for each in task_type.TYPES.values() if each.library_head]
    return {each.library_head: each().output_variables for each in types}


def tensor_names():
    """Weights and bias in a model of transformers, see `variable_names`."""
    return {kind: kind.tensors for kind in variable_names()}


def random_variables(shapes, scale, seed):
    """New variables by a dict of shapes: random matrices, and zeros as biases."""
    random = np.random.RandomState(seed)
    return {
        name: initializers.truncated_normal(random, shape, scale)
        if len(shape) > 1
        else np.zeros(shape, np.float32)
        for name, shape in shapes.items()
    }


def find_kind(kinds, shapes, hidden_size, source):
    """The `LibraryHead` of the one head among tensors.

    Args:
      kinds: dict from `LibraryHead` to the names of weights and bias.
      shapes: dict from the name of a tensor to its shape.
      hidden_size: that of the encoder.
      source: of the tensors, for messages.

    Raises:
      UserError: there is none, or several, or it has another shape.
    """
    found = [kind for kind, names in kinds.items() if shapes.keys() & names]
    if len(found) != 1:
        raise UserError(
            "%s holds %d heads of %s, one is needed: give another model, or convert "
            "this one without its head"
            % (source, len(found), ", ".join(kind.model_class for kind in kinds))
        )
    names = kinds[found[0]]
    weights, bias = map(shapes.get, names)
    if not bias or tuple(weights or ()) != (bias[0], hidden_size) or len(bias) != 1:
        raise UserError(
            "%s: the head needs %s of shape [labels, %d] and %s of shape [labels], it "
            "has %s and %s: give another model, or fetch it again"
            % (source, names[0], hidden_size, names[1], weights, bias)
        )
    return found[0]


def import_head(head, folder, options):
    """The task of a head, and the head as variables in the order of its labels.

    Args:
      head: a `Head`, or None if there is none in `folder`.
      folder: for messages.
      options: `package_conversion.PackageOptions`.

    Returns:
      The package's entry "task", and a dict from variable to float32 array.

    Raises:
      UserError: there is no head, or it is not of the task of the options.
    """
    if head is None:
        raise UserError(
            "`input_dir`=%s has no head: save it with its head, or give `new_head` for "
            "a new, untrained one" % folder
        )
    count = len(head.bias)
    if head.labels is not None and count > 1:
        task_labels = options.task.type.labels if options.task else head.labels
        if options.labels is None:
            if sorted(task_labels) == sorted(head.labels):
                options = options._replace(labels=head.labels)
        elif options.labels != head.labels and (
            sorted(options.labels) == sorted(head.labels)
        ):
            raise UserError(
                "`labels`=%s: the head in `input_dir`=%s has its outputs in the order "
                "%s; leave it out"
                % (",".join(options.labels), folder, printable(",".join(head.labels)))
            )
    found = _find_type(options, head.kind, count).adopt_head(head.form)
    entries = _describe_task(options, found)
    needed = found.library_head
    if needed != head.kind or count != found.num_outputs:
        raise UserError(
            "the head in `input_dir`=%s has %d outputs of %s, but task %s needs %d of "
            "%s: give the task and labels that it was trained on, `task_name` and "
            "`labels`"
            % (
                *(folder, count, head.kind.model_class, entries["name"]),
                found.num_outputs,
                needed.model_class if needed else "the type %s" % found.name,
            )
        )
    order = list(range(count))
    if found.labels:
        if options.labels is None:
            names = printable(", ".join(head.labels or ["unnamed"]))
            raise UserError(
                "the labels of the head in `input_dir`=%s are %s: give those of the "
                "task in the order of its outputs, such as `labels`=%s"
                % (folder, names, ",".join(found.labels))
            )
        order = [options.labels.index(label) for label in found.labels]
    return entries, {
        **dict(zip(found.output_variables, (head.weights[order], head.bias[order]))),
        **dict(zip(head.form.hidden_variables, head.hidden)),
    }


def new_head(hidden_size, options, seed):
    """A new head for the task of the options; returns the same as `import_head`."""
    count = len(options.labels or ())
    found = _find_type(options, task_type.SEQUENCE_CLASSIFICATION, count)
    shapes = found.head_shapes(hidden_size)
    variables = random_variables(shapes, head_form.INITIALIZER_RANGE, seed)
    return _describe_task(options, found), variables


def export_head(package):
    """The `Head` of a package whose task type has a `library_head`."""
    found = package.task_type
    return Head(
        found.library_head,
        *(package.weights[name] for name in found.output_variables),
        package.labels or None,
        found.head,
        tuple(package.weights[name] for name in found.head.hidden_variables),
    )


def _find_type(options, kind, count):
    """The `task_type.TaskType` of a head; its labels are in the task's order."""
    task, labels = options.task, options.labels
    if task is not None:
        own = list(task.type.labels)
        if labels is not None and sorted(labels) != sorted(own):
            raise UserError(
                "`labels`=%s are not the labels of `task_name`=%s: give %s in the "
                "order of the head's outputs"
                % (",".join(labels), task.name, ", ".join(own) or "none")
            )
        return task.type
    if labels is not None and (len(set(labels)) != len(labels) or not all(labels)):
        raise UserError(
            "`labels`=%s: labels must be distinct and not empty" % ",".join(labels)
        )
    for cls in task_type.TYPES.values():
        if cls.library_head == kind and cls.takes_outputs(count):
            try:
                found = cls.from_entries(
                    {
                        **options.entries,
                        "labels": labels,
                        "max_seq_length": options.max_seq_length,
                        "do_lower_case": options.do_lower_case is not False,
                    }
                )
            except ValueError as error:
                raise UserError(
                    "`labels` and the options of the task do not suit a head with %s: "
                    "%s" % (wording.pluralize(count, "output"), error)
                ) from None
            if not found.needs_labels:
                return found
    raise UserError(
        "`task_name`=%s is not a task of GLUE (%s): give its labels in the order "
        "of the head's outputs, `labels`=A,B, or a task file, `task_config`"
        % (options.name, ", ".join(sorted(glue_data.GLUE_TASKS)))
    )


def _describe_task(options, found):
    """The package's entry "task"."""
    if options.task is not None:
        task = options.task._replace(type=found)
        return adapter_package.describe_task(task, task.model_of)
    return adapter_package.describe_type(found, options.name)
