"""Examples to features to TFRecord to `tf.data` batches."""

import collections
from typing import NamedTuple

import tensorflow.compat.v1 as tf
from absl import logging
from tqdm import tqdm

import tokenization
from errors import UserError
from inputs import example_order
from system import files

# Records whose lengths are found at once.
PARSED_TOGETHER = 1024

# Of a record, beside its sequences: names, label, checksums.
_MOST_BYTES_BESIDE = 200


class InputExample:
    """One row of a task: text and, where it is known, a label."""

    def __init__(self, guid, text_a, text_b=None, label=None, line=None):
        """Keeps the row.

        Args:
          guid: unique id, a string.
          text_a: first text.
          text_b: second text, for tasks of pairs.
          label: label string (a number as text for regression); None: unknown.
          line: line of its file that it stands on, counted from 1; None: in no file.
        """
        self.guid = guid
        self.text_a = text_a
        self.text_b = text_b
        self.label = label
        self.line = line


class PaddingInputExample:
    """Stands for an example that fills up the last batch on TPU.

    TPU batches have one size, so the last one would have to be dropped, and with it
    examples of the test set. A type of its own rather than `None`, since whoever
    treats `None` as data by mistake would not notice.
    """


class InputFeatures:
    """The numbers of one example, padded to the sequence length S."""

    def __init__(
        self, input_ids, input_mask, segment_ids, label_id, is_real_example=True
    ):
        """Keeps the numbers.

        Args:
          input_ids: list of S ints, the word pieces.
          input_mask: list of S ints, 1 for tokens and 0 for padding.
          segment_ids: list of S ints, 1 for the second text and 0 elsewhere.
          label_id: index of the label, an int; a float for regression.
          is_real_example: False for a `PaddingInputExample`.
        """
        self.input_ids = input_ids
        self.input_mask = input_mask
        self.segment_ids = segment_ids
        self.label_id = label_id
        self.is_real_example = is_real_example


class TextCounts(NamedTuple):
    """Word pieces of a split's texts, before truncation."""

    examples: int
    pieces: int  # of all texts; [CLS] and [SEP] do not count
    unknown: int  # pieces that are [UNK]
    longest: int  # pieces of the longest example, its [CLS] and [SEP] among them
    truncated: int  # examples that are longer than the sequence length

    @property
    def unknown_fraction(self):
        return self.unknown / max(self.pieces, 1)

    @property
    def truncated_fraction(self):
        return self.truncated / max(self.examples, 1)


class TextCounter:
    """Counts the word pieces of examples, one after the other."""

    def __init__(self, max_seq_length):
        """Starts at zero; a longer example than `max_seq_length` is truncated."""
        self._max_seq_length = max_seq_length
        self.counts = TextCounts(0, 0, 0, 0, 0)

    def add(self, tokens_a, tokens_b):
        """Counts an example: the pieces of its texts, whole; `[]` for no second."""
        counts = self.counts
        pieces = [*tokens_a, *tokens_b]
        length = len(pieces) + (3 if tokens_b else 2)
        self.counts = TextCounts(
            counts.examples + 1,
            counts.pieces + len(pieces),
            counts.unknown + pieces.count(tokenization.UNKNOWN_TOKEN),
            max(counts.longest, length),
            counts.truncated + (length > self._max_seq_length),
        )


def count_texts(examples, tokenizer, max_seq_length):
    """Counts the word pieces of examples that are not written anywhere.

    Args:
      examples: iterable of `InputExample`.
      tokenizer: a `tokenization.FullTokenizer`.
      max_seq_length: a longer example is truncated.

    Returns:
      A `TextCounts`.
    """
    counter = TextCounter(max_seq_length)
    for example in examples:
        counter.add(
            tokenizer.tokenize(example.text_a),
            tokenizer.tokenize(example.text_b) if example.text_b else [],
        )
    return counter.counts


def feature_spec(seq_length, is_regression=False):
    """The one description of a record, for the writer, the parser and padding.

    Args:
      seq_length: length S of the sequences in the file.
      is_regression: whether labels are numbers.

    Returns:
      Ordered dict from name to `tf.FixedLenFeature`. Those of rank 1 are sequences.
    """
    sequence = tf.FixedLenFeature([seq_length], tf.int64)
    return collections.OrderedDict(
        input_ids=sequence,
        input_mask=sequence,
        segment_ids=sequence,
        label_ids=tf.FixedLenFeature([], tf.float32 if is_regression else tf.int64),
        is_real_example=tf.FixedLenFeature([], tf.int64),
    )


def convert_single_example(
    ex_index, example, label_list, max_seq_length, tokenizer, counter=None
):
    """Turns an example into numbers, as BERT's input is laid out.

    `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`; too long a pair loses the last piece of
    its longer text until it fits. A second text without a piece counts as none.

    Args:
      ex_index: number of the example; the first five are logged.
      example: an `InputExample` or a `PaddingInputExample`.
      label_list: labels in order; None for regression.
      max_seq_length: length S, at least 3.
      tokenizer: a `tokenization.FullTokenizer`.
      counter: a `TextCounter` that is told of an `InputExample`'s pieces, or None.

    Returns:
      An `InputFeatures`.
    """
    if isinstance(example, PaddingInputExample):
        empty = [0] * max_seq_length
        return InputFeatures(empty, empty, empty, 0, is_real_example=False)

    tokens_a = tokenizer.tokenize(example.text_a)
    tokens_b = tokenizer.tokenize(example.text_b) if example.text_b else []
    if counter is not None:
        counter.add(tokens_a, tokens_b)
    if tokens_b:
        _truncate_seq_pair(tokens_a, tokens_b, max_seq_length - 3)
    else:
        del tokens_a[max_seq_length - 2 :]

    tokens = ["[CLS]", *tokens_a, "[SEP]"]
    segment_ids = [0] * len(tokens)
    if tokens_b:
        tokens += [*tokens_b, "[SEP]"]
        segment_ids += [1] * (len(tokens_b) + 1)
    input_ids = tokenizer.convert_tokens_to_ids(tokens)
    padding = [0] * (max_seq_length - len(tokens))
    input_mask = [1] * len(tokens)

    if label_list is None:
        label_id = float(example.label)
    else:
        label_id = label_list.index(example.label)
    features = InputFeatures(
        input_ids + padding, input_mask + padding, segment_ids + padding, label_id
    )
    if ex_index < 5:
        _log_example(example, tokens, features)
    return features


def _log_example(example, tokens, features):
    tf.logging.info("*** Example ***")
    tf.logging.info("guid: %s", example.guid)
    tf.logging.info(
        "tokens: %s", " ".join(tokenization.printable_text(x) for x in tokens)
    )
    for name in ("input_ids", "input_mask", "segment_ids"):
        values = getattr(features, name)
        tf.logging.info("%s: %s", name, " ".join(str(value) for value in values))
    tf.logging.info("label: %s (id = %s)", example.label, features.label_id)


def _truncate_seq_pair(tokens_a, tokens_b, max_length):
    """Shortens the longer list from its end, b on a tie, until both fit."""
    while len(tokens_a) + len(tokens_b) > max_length:
        longer = tokens_a if len(tokens_a) > len(tokens_b) else tokens_b
        longer.pop()


def max_record_bytes(max_seq_length):
    """The most that the features of an example take in a file, in bytes."""
    # A mark of 0 or 1 takes a byte, the id of a word piece at most three.
    return 5 * max_seq_length + _MOST_BYTES_BESIDE


def file_based_convert_examples_to_features(
    examples, label_list, max_seq_length, tokenizer, output_file
):
    """Writes the features of examples to a TFRecord file, whole or not at all.

    Args:
      examples: list of `InputExample` and `PaddingInputExample`.
      label_list: labels in order; None for regression.
      max_seq_length: length of the sequences.
      tokenizer: a `tokenization.FullTokenizer`.
      output_file: path of the file.

    Returns:
      The `TextCounts` of the examples.
    """
    counter = TextCounter(max_seq_length)
    need = len(examples) * max_record_bytes(max_seq_length)
    with (
        files.atomic_file(output_file, need) as partial,
        tf.io.TFRecordWriter(partial) as writer,
    ):
        _write_records(writer, examples, label_list, max_seq_length, tokenizer, counter)
    return counter.counts


def _write_records(writer, examples, label_list, max_seq_length, tokenizer, counter):
    spec = feature_spec(max_seq_length, is_regression=label_list is None)
    progress = tqdm(
        examples, desc="tokenizing", unit=" examples", mininterval=1.0, disable=None
    )
    for index, example in enumerate(progress):
        if index % 10000 == 0:
            tf.logging.info("Writing example %d of %d", index, len(examples))
        features = convert_single_example(
            index, example, label_list, max_seq_length, tokenizer, counter
        )
        values = {
            "input_ids": features.input_ids,
            "input_mask": features.input_mask,
            "segment_ids": features.segment_ids,
            "label_ids": [features.label_id],
            "is_real_example": [int(features.is_real_example)],
        }
        record = tf.train.Example()
        for name, column in spec.items():
            feature = record.features.feature[name]
            kind = feature.int64_list if column.dtype.is_integer else feature.float_list
            kind.value.extend(values[name])
        writer.write(record.SerializeToString())


def input_fn_builder(
    input_file,
    seq_length,
    is_training,
    drop_remainder,
    is_regression=False,
    dynamic_padding=False,
    num_examples=None,
    seed=0,
    length_multiple=1,
):
    """Batches from a file of features, for `TPUEstimator`.

    With `dynamic_padding` a batch is cut to its longest example. Padding is masked, so
    results do not depend on it.

    In training each epoch holds each example once, in an order that follows from the
    seed, the epoch's number, the batch size and the lengths alone (`example_order`).
    Examples of steps before the global step are skipped without being parsed.

    Args:
      input_file: path of the TFRecord file.
      seq_length: length S of the sequences in it.
      is_training: shuffle and repeat without end; the file is then kept in memory.
      drop_remainder: leave out an incomplete last batch (static shapes); in training
        there is none.
      is_regression: whether labels are numbers.
      dynamic_padding: cut batches to their longest example; in training, also group
        examples of similar length.
      num_examples: examples in the file; needed for training.
      seed: seed of the shuffling, an int.
      length_multiple: `dynamic_padding` cuts to a multiple of it, so that there are
        fewer shapes to compile for.

    Returns:
      A function of `params`, whose "batch_size" counts, of the Estimator's `RunConfig`,
      and of the `tf.distribute.InputContext` under a distribution strategy. It gives a
      `tf.data.Dataset` of dicts: sequences int32 [B, S], the others [B]. With several
      replicas, TPU cores among them, the parts of each batch that those of this machine
      compute, in turn.
    """
    spec = feature_spec(seq_length, is_regression)

    def parse(serialized):
        return {
            name: tf.cast(value, tf.int32) if value.dtype == tf.int64 else value
            for name, value in tf.io.parse_example(serialized, spec).items()
        }

    def cut(batch):
        longest = tf.reduce_max(tf.reduce_sum(batch["input_mask"], axis=1))
        # A batch of padding examples alone still needs a position.
        longest = tf.maximum((longest + length_multiple - 1) // length_multiple, 1)
        longest = tf.minimum(longest * length_multiple, seq_length)
        return {
            name: value[:, :longest] if spec[name].shape else value
            for name, value in batch.items()
        }

    def with_lengths(serialized):
        mask = {"input_mask": spec["input_mask"]}
        mask = tf.io.parse_example(serialized, mask)["input_mask"]
        return serialized, tf.cast(tf.reduce_sum(mask, axis=1), tf.int32)

    def training_batches(dataset, params, config, input_context):
        share = example_order.local_slice(params, input_context)
        step = example_order.read_next_step(config)

        def gathered(records, lengths=None):
            rows = example_order.iterate_batches(
                share, step, num_examples, seed, lengths
            )
            return rows.map(lambda numbers: tf.gather(records, numbers))

        if dynamic_padding:
            dataset = dataset.batch(PARSED_TOGETHER).map(with_lengths).unbatch()
        return dataset.batch(num_examples).flat_map(gathered)

    def rows_in_batches(params, config, input_context):
        dataset = tf.data.TFRecordDataset(input_file)
        if is_training:
            dataset = training_batches(dataset, params, config, input_context)
        else:
            dataset = dataset.batch(params["batch_size"], drop_remainder=drop_remainder)
        dataset = dataset.map(parse)
        if dynamic_padding:
            dataset = dataset.map(cut)
        # There is nothing to tune here, and TensorFlow's tuning can miss that it is to
        # stop: on one core a training of minutes then waits up to 60 s at its end.
        options = tf.data.Options()
        options.autotune.enabled = False
        return dataset.prefetch(2).with_options(options)

    def input_fn(params, config=None, input_context=None):
        # AutoGraph takes 0.4 s to find nothing to rewrite in these functions.
        as_it_is = tf.autograph.experimental.do_not_convert(rows_in_batches)
        return as_it_is(params, config, input_context)

    return input_fn


def check_vocabulary(vocab_file, vocab, vocab_size, config_file):
    """Refuses a vocabulary whose last pieces have no embedding; tells what is odd.

    Args:
      vocab_file: its path, for the messages.
      vocab: mapping of its word pieces to ids, as `tokenization.load_vocab` returns.
      vocab_size: that of the model.
      config_file: where this stands, for the message.

    Raises:
      UserError: it is larger than the model's.
    """
    entries = max(vocab.values()) + 1
    if entries > vocab_size:
        raise UserError(
            "%s has %d entries but vocab_size in %s is %d: give the two files of one "
            "model, by --vocab_file and --bert_config_file or in the same folder"
            % (vocab_file, entries, config_file, vocab_size)
        )
    repeated = entries - len(vocab)
    if repeated:
        first = min(set(range(entries)).difference(vocab.values()))
        logging.warning(
            "%s: the tokens of %d lines, first line %d, stand on later lines again. "
            "The last line of a token gives its id, as in Google's BERT.",
            vocab_file,
            repeated,
            first + 1,
        )
    if vocab.get(tokenization.PADDING_TOKEN) != 0:
        logging.warning(
            "%s does not have %s on its first line, as BERT's vocabularies do. Padding "
            "has id 0 all the same, and is masked. Make sure that this is the "
            "checkpoint's own vocabulary.",
            vocab_file,
            tokenization.PADDING_TOKEN,
        )


def check_seq_length(max_seq_length, longest):
    """Refuses a sequence length that BERT's layout or positions do not allow.

    Raises:
      UserError: below 3 (no place for a pair) or above `longest`.
    """
    if max_seq_length < 3:
        raise UserError(
            "--max_seq_length=%d leaves no room for text: at least 3 is needed, for "
            "[CLS] and two [SEP]" % max_seq_length
        )
    if max_seq_length > longest:
        raise UserError(
            "cannot use sequence length %d, --max_seq_length: the model's position "
            "embeddings end at %d (max_position_embeddings of --bert_config_file)"
            % (max_seq_length, longest)
        )
