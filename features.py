"""Examples to features to TFRecord to `tf.data` batches."""


class InputExample:
    """One row of a task: text and, where it is known, a label."""

    def __init__(self, guid, text_a, text_b=None, label=None):
        """Keeps the row.

        Args:
          guid: unique id, a string.
          text_a: first text.
          text_b: second text, for tasks of pairs.
          label: label string (a number as text for regression); None: unknown.
        """
        self.guid = guid
        self.text_a = text_a
        self.text_b = text_b
        self.label = label
