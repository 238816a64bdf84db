"""Requests as TensorFlow Serving keeps them in files: its `PredictionLog` messages.

The package tensorflow-serving-api would bring these; they are so few that one more
pinned package does not pay.
"""

import tensorflow.compat.v1 as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "adapter_bert"
# Message -> field -> number and type ("" is a string, "*" repeated), by TensorFlow
# Serving's apis/model.proto, predict.proto and prediction_log.proto. Bytes do not hold
# names, so the package of our own only keeps these apart from Serving's.
_MESSAGES = {
    "ModelSpec": {"signature_name": (3, "")},
    # An entry of a map; in bytes it is this.
    "Input": {"key": (1, ""), "value": (2, ".tensorflow.TensorProto")},
    "PredictRequest": {
        "model_spec": (1, ".adapter_bert.ModelSpec"),
        "inputs": (2, ".adapter_bert.Input*"),
    },
    "PredictLog": {"request": (1, ".adapter_bert.PredictRequest")},
    "PredictionLog": {"predict_log": (6, ".adapter_bert.PredictLog")},
}


def _message_class(name):
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="adapter_bert/serving_requests.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[tf.make_tensor_proto(0).DESCRIPTOR.file.name],
    )
    for message, fields in _MESSAGES.items():
        added = file.message_type.add(name=message)
        for field, (number, kind) in fields.items():
            repeated = kind.endswith("*")
            added.field.add(
                name=field,
                number=number,
                label=kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL,
                type=kinds.TYPE_MESSAGE if kind else kinds.TYPE_STRING,
                type_name=kind.rstrip("*") or None,
            )
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("%s.%s" % (_PACKAGE, name))
    )


PredictionLog = _message_class("PredictionLog")


def prediction_log(signature, inputs):
    """One request.

    Args:
      signature: name of the signature that it calls.
      inputs: dict from an input's name to an array, or a list of text.

    Returns:
      A `PredictionLog`.
    """
    log = PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs.add(key=name).value.CopyFrom(tf.make_tensor_proto(value))
    return log
