"""Examples to features to TFRecord to `tf.data` batches."""

import dataclasses

import numpy as np
import tensorflow.compat.v1 as tf
from tqdm import tqdm

import tokenization
from errors import UserError
from inputs import example_order
from system import console, files, wording

NOT_LOGGED = 1 << 62  # number of an example that is not among the first

_LOGGED = 5  # examples, the first

# Records that are parsed at once for their lengths.
PARSED_TOGETHER = 1024

_RECORD_OVERHEAD = 200  # bytes beside the sequences: names, label, checksums
_SEQUENCES = ("input_ids", "input_mask", "segment_ids")
_CLASS_ID = tf.FixedLenFeature([], tf.int64)
_NUMBER = tf.FixedLenFeature([], tf.float32)


@dataclasses.dataclass(eq=False)
class InputExample:
    """One example of a task."""

    guid: str  # unique
    text_a: str
    text_b: str | None = None  # for tasks of pairs
    label: str | None = None  # None: unknown
    line: int | None = None  # in the example's file, from 1; None: in no file


class PaddingInputExample:
    """An example that fills up the last batch on TPU, in the original program."""


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
    pieces: int = 0  # of all texts; [CLS] and [SEP] do not count
    unknown: int = 0  # pieces that are [UNK]
    longest: int = 0  # pieces of the longest example, its [CLS] and [SEP] among them
    truncated: int = 0  # examples that are longer than the sequence length
    features: int = 0  # that are written, without those that fill up a batch

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


def _tokenize(tokenizer, example):
    tokens_b = tokenizer.tokenize(example.text_b) if example.text_b else []
    return tokenizer.tokenize(example.text_a), tokens_b


def feature_spec(seq_length, label=_CLASS_ID):
    """The features of a record: dict from name to `tf.FixedLenFeature`.

    Sequences have the shape [seq_length], `is_real_example` []; `label` is the
    feature of the label.
    """
    sequence = tf.FixedLenFeature([seq_length], tf.int64)
    return {
        **dict.fromkeys(_SEQUENCES, sequence),
        "label_ids": label,
        "is_real_example": tf.FixedLenFeature([], tf.int64),
    }


def convert_single_example(
    ex_index, example, label_list, max_seq_length, tokenizer, counts=None
):
    """Converts an example to features, as the original program does.

    Args:
      ex_index: number of the example; the first five are logged.
      example: an `InputExample` or a `PaddingInputExample`.
      label_list: labels in order; None for regression.
      max_seq_length: length S of the `InputFeatures` that are returned, at least 3.
      tokenizer: a `tokenization.FullTokenizer`.
      counts: a `TextCounts` to which an `InputExample` is added, or None.
    """
    if isinstance(example, PaddingInputExample):
        empty = [0] * max_seq_length
        return InputFeatures(empty, empty, empty, 0, is_real_example=False)
    label = example.label
    label_id = float(label) if label_list is None else label_list.index(label)
    values = encode_example(
        ex_index, example, label_id, max_seq_length, tokenizer, counts
    )
    return InputFeatures(*(values[name] for name in _SEQUENCES), label_id)


def encode_example(index, example, label_id, max_seq_length, tokenizer, counts=None):
    """Encodes an example as `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`.

    A pair is truncated by removing the last piece of its longer text until it fits. A
    second text without word pieces counts as none.

    `label_id` is a number, an array or None; see `convert_single_example` for the other
    arguments. Returns a dict with the names of `feature_spec`.
    """
    tokens_a, tokens_b = _tokenize(tokenizer, example)
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
    if index < _LOGGED:
        _log_example(example, tokens, values)
    return values


def _log_example(example, tokens, values):
    tf.logging.info("*** Example ***")
    tf.logging.info("guid: %s", example.guid)
    tf.logging.info("tokens: %s", " ".join(tokens))
    for name in _SEQUENCES:
        tf.logging.info("%s: %s", name, " ".join(map(str, values[name])))
    tf.logging.info("label: %s (id = %s)", example.label, values["label_ids"])


def _truncate_seq_pair(tokens_a, tokens_b, max_length):
    """Shortens the longer list from its end, b on a tie, until both fit."""
    while len(tokens_a) + len(tokens_b) > max_length:
        longer = tokens_a if len(tokens_a) > len(tokens_b) else tokens_b
        longer.pop()


def file_based_convert_examples_to_features(
    examples, label_list, max_seq_length, tokenizer, output_file
):
    """Writes the features of examples to a TFRecord file, as the original program does.

    See `convert_single_example` for the arguments. Returns the `TextCounts`.
    """

    def featurize(index, example, counts):
        found = convert_single_example(
            index, example, label_list, max_seq_length, tokenizer, counts
        )
        is_real = int(found.is_real_example)
        return [dict(vars(found), label_ids=found.label_id, is_real_example=is_real)]

    spec = feature_spec(max_seq_length, _NUMBER if label_list is None else _CLASS_ID)
    return write_features(examples, featurize, spec, output_file)


def write_features(examples, featurize, spec, output_file, multiple=1):
    """Writes the features of examples to a TFRecord file, whole or not at all.

    Args:
      examples: list of examples.
      featurize: function of an example's number, the example and `TextCounts`; returns
        its features, dicts with the names of the spec. Missing values are zero.
      spec: dict from name to `tf.FixedLenFeature`.
      output_file: path of the file.
      multiple: features of zeros fill up their number to a multiple of it. TPU batches
        have one size, so an incomplete last batch would be dropped.

    Returns the `TextCounts` of the examples.
    """
    counts = TextCounts()
    progress = tqdm(
        examples, desc="tokenizing", unit=" examples", mininterval=1.0, disable=None
    )
    # An entry of a mask takes a byte, the id of a word piece at most three.
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
    """A `tf.train.Example` that the spec parses, as bytes."""
    record = tf.train.Example()
    columns = record.features.feature
    for name, feature in spec.items():
        value, column = values.get(name), columns[name]
        if value is None:
            value = np.zeros(feature.shape, feature.dtype.as_numpy_dtype)
        numbers = column.float_list if feature.dtype.is_floating else column.int64_list
        # NumPy's conversion would take longer than the tokenizer.
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

    In training each epoch holds each example once, in an order that depends on the
    seed, the epoch's number, the batch size and the lengths alone (`example_order`).
    Examples of steps before the global step are skipped without being parsed.

    Args:
      input_file: path of the TFRecord file.
      seq_length: length S of the sequences in it.
      is_training: shuffle and repeat without end; the file is kept in memory.
      drop_remainder: drop an incomplete last batch (static shapes); in training there
        is none.
      spec: the features of a record; None: the `feature_spec` of a classification.
      dynamic_padding: truncate batches to their longest example, which does not change
        results, since padding is masked; in training, also group examples by length.
      num_examples: examples in the file; needed for training.
      seed: int, of the shuffling.
      length_multiple: `dynamic_padding` pads to a multiple of it, so that fewer shapes
        are compiled.

    Returns:
      A function of `params` (with "batch_size"), the Estimator's `RunConfig`, and the
      `tf.distribute.InputContext` of a distribution strategy. It returns a
      `tf.data.Dataset` of dicts: sequences int32 [B, S], the others [B]. With several
      replicas, such as TPU cores, it holds the parts of each batch that the replicas of
      this machine compute, in turn.
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
        # A batch of padding examples alone still needs a position.
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
        # The pipeline has nothing to tune, and on one core autotuning can delay the end
        # of a run by up to 60 s.
        options = tf.data.Options()
        options.autotune.enabled = False
        return dataset.prefetch(2).with_options(options)

    def input_fn(params, config=None, input_context=None):
        # AutoGraph would take 0.4 s to find nothing to convert.
        unconverted = tf.autograph.experimental.do_not_convert(make_dataset)
        return unconverted(params, config, input_context)

    return input_fn


def check_vocabulary(vocab_file, vocab, vocab_size, config_file):
    """Refuses a vocabulary larger than the model's; warns of what is unusual.

    `vocab` is a dict from word piece to id, `vocab_size` the model's; the paths of
    their files are for messages.

    Raises:
      UserError: word pieces at its end have no embedding.
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
        repeated = wording.pluralize(entries - len(vocab), "line")
        console.warn(text, vocab_file, repeated, first + 1)
    if vocab.get(tokenization.PADDING_TOKEN) != 0:
        console.warn(
            "%s does not have %s on its first line, as BERT's vocabularies do: is it "
            "the checkpoint's? (Padding has id 0 nevertheless, and is masked.)",
            vocab_file,
            tokenization.PADDING_TOKEN,
        )


def check_seq_length(max_seq_length, max_position_embeddings):
    """Raises a `UserError` unless 3 <= max_seq_length <= max_position_embeddings."""
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
