"""Examples to features to TFRecord to `tf.data` batches."""

import dataclasses
import math

import numpy as np
import tensorflow.compat.v1 as tf
from tqdm import tqdm

import tokenization
from errors import UserError
from inputs import example_order
from system import console, files, wording

NOT_LOGGED = 1 << 62  # an example number for which nothing is logged

_MAX_LOGGED = 5  # the first examples

PARSED_TOGETHER = 1024  # records in a batch of the parser for lengths

_RECORD_OVERHEAD = 200  # bytes beside the sequences: names, label, checksums
SEQUENCES = ("input_ids", "input_mask", "segment_ids")  # int32 [sequence length]
_CLASS_ID = tf.FixedLenFeature([], tf.int64)
_NUMBER = tf.FixedLenFeature([], tf.float32)


@dataclasses.dataclass(eq=False)
class InputExample:
    """One example of a task."""

    guid: str  # unique
    text_a: str
    text_b: str | None = None  # in sentence pair tasks
    label: str | None = None  # None: unknown
    line: int | None = None  # line number in a file, from 1


class PaddingInputExample:
    """Padding of the last batch on TPU, in the original program."""


@dataclasses.dataclass(eq=False)
class InputFeatures:
    """The features of one example, padded to the sequence length S."""

    input_ids: list[int]  # S word pieces
    input_mask: list[int]  # S times 1 for tokens, 0 for padding
    segment_ids: list[int]  # S times 1 for the second text, 0 elsewhere
    label_id: int | float  # index of the label; for regression its value
    is_real_example: bool = True  # False for a `PaddingInputExample`


@dataclasses.dataclass
class TextCounts:
    """Word pieces of a split's texts, before truncation."""

    examples: int = 0
    pieces: int = 0  # without [CLS] and [SEP]
    unknown: int = 0  # pieces that are [UNK]
    longest: int = 0  # pieces of the longest example, with [CLS] and [SEP]
    truncated: int = 0  # examples longer than the sequence length
    features: int = 0  # written features, without padding of a batch

    def add(self, tokens_a, tokens_b, max_seq_length):
        """Counts an example; `tokens_b` is [] for a single text."""
        pieces = [*tokens_a, *tokens_b]
        length = len(pieces) + (3 if tokens_b else 2)
        self.examples += 1
        self.pieces += len(pieces)
        self.unknown += pieces.count(tokenization.UNKNOWN_TOKEN)
        self.longest = max(self.longest, length)
        self.truncated += length > max_seq_length

    @property
    def unknown_fraction(self):
        return self.unknown / max(self.pieces, 1)

    @property
    def truncated_fraction(self):
        return self.truncated / max(self.examples, 1)


def feature_spec(seq_length, label=_CLASS_ID):
    """The feature spec of a record: dict from name to `tf.FixedLenFeature`.

    Sequences have the shape [seq_length]; `label` is the label's spec.
    """
    sequence = tf.FixedLenFeature([seq_length], tf.int64)
    return {
        **dict.fromkeys(SEQUENCES, sequence),
        "label_ids": label,
        "is_real_example": tf.FixedLenFeature([], tf.int64),
    }


def convert_single_example(
    ex_index, example, label_list, max_seq_length, tokenizer, counts=None
):
    """Converts an example to `InputFeatures`; the original's function.

    Args:
      ex_index: number of the example; the first five are logged.
      example: an `InputExample` or a `PaddingInputExample`.
      label_list: labels in order; None for regression.
      max_seq_length: sequence length S, at least 3.
      tokenizer: a `tokenization.FullTokenizer`.
      counts: a `TextCounts` to update, or None.
    """
    if isinstance(example, PaddingInputExample):
        empty = [0] * max_seq_length
        return InputFeatures(empty, empty, empty, 0, is_real_example=False)
    label = example.label
    label_id = float(label) if label_list is None else label_list.index(label)
    values = encode_example(
        ex_index, example, label_id, max_seq_length, tokenizer, counts
    )
    return InputFeatures(*(values[name] for name in SEQUENCES), label_id)


def encode_example(index, example, label_id, max_seq_length, tokenizer, counts=None):
    """Encodes an example as `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`.

    A second text without word pieces is ignored. Pairs are truncated by removing the
    last piece of the longer text until both fit.

    `label_id` is a number, an array or None; see `convert_single_example` for the other
    arguments. Returns a dict with the names of `feature_spec`.
    """
    tokens_a = tokenizer.tokenize(example.text_a)
    tokens_b = tokenizer.tokenize(example.text_b) if example.text_b else []
    if counts is not None:
        counts.add(tokens_a, tokens_b, max_seq_length)
    if tokens_b:
        _truncate_seq_pair(tokens_a, tokens_b, max_seq_length - 3)
    else:
        del tokens_a[max_seq_length - 2 :]

    tokens = ["[CLS]", *tokens_a, "[SEP]"]
    segment_ids = [0] * len(tokens)
    if tokens_b:
        tokens += [*tokens_b, "[SEP]"]
        segment_ids += [1] * (len(tokens_b) + 1)
    padding = [0] * (max_seq_length - len(tokens))
    values = {
        "input_ids": tokenizer.convert_tokens_to_ids(tokens) + padding,
        "input_mask": [1] * len(tokens) + padding,
        "segment_ids": segment_ids + padding,
        "label_ids": label_id,
        "is_real_example": 1,
    }
    if index < _MAX_LOGGED:
        _log_example(example, tokens, values)
    return values


def _log_example(example, tokens, values):
    tf.logging.info("*** Example ***")
    tf.logging.info("guid: %s", example.guid)
    tf.logging.info("tokens: %s", " ".join(tokens))
    for name in SEQUENCES:
        tf.logging.info("%s: %s", name, " ".join(map(str, values[name])))
    tf.logging.info("label: %s (id = %s)", example.label, values["label_ids"])


def _truncate_seq_pair(tokens_a, tokens_b, max_length):
    """Truncates the longer list, b on a tie, until both fit `max_length`."""
    while len(tokens_a) + len(tokens_b) > max_length:
        longer = tokens_a if len(tokens_a) > len(tokens_b) else tokens_b
        longer.pop()


def file_based_convert_examples_to_features(
    examples, label_list, max_seq_length, tokenizer, output_file
):
    """Writes features to a TFRecord file; the original's function.

    See `convert_single_example` for the arguments. Returns the `TextCounts`.
    """

    def featurize(index, example, counts):
        features = convert_single_example(
            index, example, label_list, max_seq_length, tokenizer, counts
        )
        is_real = int(features.is_real_example)
        return [
            dict(vars(features), label_ids=features.label_id, is_real_example=is_real)
        ]

    spec = feature_spec(max_seq_length, _NUMBER if label_list is None else _CLASS_ID)
    return write_features(examples, featurize, spec, output_file)


def write_features(examples, featurize, spec, output_file, multiple=1):
    """Writes the features of examples to a TFRecord file, atomically.

    Args:
      examples: list of examples.
      featurize: function of an example's number, the example and `TextCounts`; returns
        a list of features, dicts with the names of the spec. Missing values are zero.
      spec: dict from name to `tf.FixedLenFeature`.
      output_file: path of the file.
      multiple: pad the number of features to a multiple with zeros: on TPU an
        incomplete last batch is dropped.

    Returns:
      The `TextCounts` of the examples.
    """
    counts = TextCounts()
    progress = tqdm(
        examples, desc="tokenizing", unit=" examples", mininterval=1.0, disable=None
    )
    # A mask takes one byte per position, the id of a word piece at most three.
    (seq_length,) = spec["input_ids"].shape
    need = len(examples) * (5 * seq_length + _RECORD_OVERHEAD)
    with (
        files.atomic_file(output_file, need) as partial,
        tf.io.TFRecordWriter(partial) as writer,
    ):
        for index, example in enumerate(progress):
            if index % 10000 == 0:
                tf.logging.info("Writing example %d of %d", index, len(examples))
            for values in featurize(index, example, counts):
                writer.write(_serialize(values, spec))
                counts.features += 1
        for _ in range(-counts.features % multiple):
            writer.write(_serialize({}, spec))
    return counts


def _serialize(values, spec):
    """Serializes a dict of values as a `tf.train.Example` of the spec."""
    record = tf.train.Example()
    columns = record.features.feature
    for name, feature in spec.items():
        value, column = values.get(name), columns[name]
        if value is None:
            value = np.zeros(feature.shape, feature.dtype.as_numpy_dtype)
        numbers = column.float_list if feature.dtype.is_floating else column.int64_list
        # Converting lists by NumPy would take longer than tokenization.
        value = value if isinstance(value, list) else np.ravel(value).tolist()
        numbers.value.extend(value)
    return record.SerializeToString()


def input_fn_builder(
    input_file,
    seq_length,
    is_training,
    drop_remainder,
    spec=None,
    dynamic_padding=False,
    num_examples=None,
    seed=0,
    length_multiple=1,
):
    """Builds an input function for `TPUEstimator` that reads a file of features.

    In training each epoch has each example once, see `example_order`. A resumed run
    skips the examples of earlier steps without parsing them.

    Args:
      input_file: path of the TFRecord file.
      seq_length: sequence length S.
      is_training: shuffle and repeat infinitely; the file is kept in memory.
      drop_remainder: drop an incomplete last batch, for static shapes.
      spec: feature spec; None: `feature_spec(seq_length)`.
      dynamic_padding: truncate batches to their longest example; in training, also
        group examples by length. Padding is masked, so results do not change.
      num_examples: examples in the file; required for training.
      seed: int, for shuffling.
      length_multiple: `dynamic_padding` pads to a multiple, so that fewer shapes are
        compiled.

    Returns:
      A function of `params` (with "batch_size"), the Estimator's `RunConfig`, and the
      `tf.distribute.InputContext` of a distribution strategy. Returns a
      `tf.data.Dataset` of dicts: sequences int32 [B, S], others [B]; B is per replica.
    """
    spec = spec or feature_spec(seq_length)
    sequences = [name for name in spec if list(spec[name].shape) == [seq_length]]

    def parse(serialized):
        return {
            name: tf.cast(value, tf.int32) if value.dtype == tf.int64 else value
            for name, value in tf.io.parse_example(serialized, spec).items()
        }

    def truncate(batch):
        longest = tf.reduce_max(tf.reduce_sum(batch["input_mask"], axis=1))
        # A batch of padding examples needs at least one position.
        longest = tf.maximum((longest + length_multiple - 1) // length_multiple, 1)
        longest = tf.minimum(longest * length_multiple, seq_length)
        return {
            name: value[:, :longest] if name in sequences else value
            for name, value in batch.items()
        }

    def add_lengths(serialized):
        mask = {"input_mask": spec["input_mask"]}
        mask = tf.io.parse_example(serialized, mask)["input_mask"]
        return serialized, tf.cast(tf.reduce_sum(mask, axis=1), tf.int32)

    def training_batches(dataset, params, config, input_context):
        batch_slice = example_order.local_slice(params, input_context)
        step = example_order.read_next_step(config)

        def gather_batches(records, lengths=None):
            batches = example_order.iterate_batches(
                batch_slice, step, num_examples, seed, lengths
            )
            return batches.map(lambda numbers: tf.gather(records, numbers))

        if dynamic_padding:
            dataset = dataset.batch(PARSED_TOGETHER).map(add_lengths).unbatch()
        return dataset.batch(num_examples).flat_map(gather_batches)

    def make_dataset(params, config, input_context):
        dataset = tf.data.TFRecordDataset(input_file)
        if is_training:
            dataset = training_batches(dataset, params, config, input_context)
        else:
            dataset = dataset.batch(params["batch_size"], drop_remainder=drop_remainder)
        dataset = dataset.map(parse)
        if dynamic_padding:
            dataset = dataset.map(truncate)
        # Nothing to tune; on one core autotuning can delay the end of a run by 60 s.
        options = tf.data.Options()
        options.autotune.enabled = False
        return dataset.prefetch(2).with_options(options)

    def input_fn(params, config=None, input_context=None):
        # AutoGraph would take 0.4 s and convert nothing.
        unconverted = tf.autograph.experimental.do_not_convert(make_dataset)
        return unconverted(params, config, input_context)

    return input_fn


def check_vocabulary(vocab_file, vocab, vocab_size, config_file):
    """Checks a vocabulary, a dict from word piece to id, against the model.

    Warns about duplicate lines and an unusual [PAD]. The paths are for messages.

    Raises:
      UserError: the vocabulary exceeds `vocab_size`, the number of embeddings.
    """
    entries = max(vocab.values()) + 1
    if entries > vocab_size:
        raise UserError(
            "%s has %d entries but vocab_size in %s is %d: give the two files of one "
            "model, by `vocab_file` and `bert_config_file` or in the same folder"
            % (vocab_file, entries, config_file, vocab_size)
        )
    if len(vocab) < entries:
        first = min(set(range(entries)).difference(vocab.values()))
        text = "%s: %s, first line %d, with tokens of later lines, whose ids they get"
        duplicates = wording.pluralize(entries - len(vocab), "line")
        console.warn(text, vocab_file, duplicates, first + 1)
    if vocab.get(tokenization.PADDING_TOKEN) != 0:
        console.warn(
            "%s does not have %s on its first line, as BERT's vocabularies do: is it "
            "the checkpoint's? (Padding has id 0 nevertheless, and is masked.)",
            vocab_file,
            tokenization.PADDING_TOKEN,
        )


def check_seq_length(max_seq_length, max_position_embeddings=math.inf):
    """Requires 3 <= max_seq_length <= max_position_embeddings; else a `UserError`."""
    if max_seq_length < 3:
        raise UserError(
            "`max_seq_length`=%d leaves no room for text: at least 3 is needed, for "
            "[CLS] and two [SEP]" % max_seq_length
        )
    if max_seq_length > max_position_embeddings:
        raise UserError(
            "cannot use sequence length %d, `max_seq_length`: the model's position "
            "embeddings end at %d (max_position_embeddings of `bert_config_file`)"
            % (max_seq_length, max_position_embeddings)
        )
