"""From a span of tokens back to the text of a context."""

import tensorflow.compat.v1 as tf

import tokenization


class TextAligner:
    """Finds the text of tokens in a context."""

    def __init__(self, words, do_lower_case, verbose_logging=False):
        """Takes the context's `ContextWords`; for the others see `get_final_text`."""
        self._spans = words.spans()
        self._words = [words.text[a:b] for a, b in self._spans]
        self._do_lower_case, self._is_verbose = do_lower_case, verbose_logging

    def align(self, feature, start, end):
        """Finds the tokens from a start to an end position of an `InputFeatures`.

        Returns:
          The text, words joined by spaces, and a slice: its characters in the context.
          In both, whole words stand for tokens that cannot be aligned with their text.
        """
        pieces = " ".join(feature.tokens[start : end + 1])
        pieces = " ".join(pieces.replace(" ##", "").replace("##", "").split())
        first = feature.token_to_orig_map[start]
        last = feature.token_to_orig_map[end]
        text = " ".join(self._words[first : last + 1])
        part = _find_part(pieces, text, self._do_lower_case, self._is_verbose)
        characters = slice(
            self._find_character(first, text, part.start),
            self._find_character(first, text, part.stop - 1) + 1,
        )
        return text[part], characters

    def _find_character(self, first_word, text, position):
        """Position in the context of a character of words that are joined to a text."""
        word_start = text.rfind(" ", 0, position) + 1
        word = first_word + text.count(" ", 0, position)
        return self._spans[word][0] + position - word_start


def get_final_text(pred_text, orig_text, do_lower_case, verbose_logging=False):
    """Finds a predicted text in the original text.

    The tokenizer separated punctuation, and may have lower-cased the text and stripped
    accents: "steve smith" is "Steve Smith" in "Steve Smith's".

    Args:
      pred_text: tokens, joined by spaces.
      orig_text: words, joined by spaces.
      do_lower_case: as the tokenizer's.
      verbose_logging: whether to log why there is no such part.

    Returns:
      A part of `orig_text`, or the whole if both texts cannot be aligned.
    """
    return orig_text[_find_part(pred_text, orig_text, do_lower_case, verbose_logging)]


def _find_part(pred_text, orig_text, do_lower_case, verbose_logging):
    """The slice of `get_final_text`; aligns characters without spaces."""
    words = tokenization.BasicTokenizer(do_lower_case).tokenize(orig_text)
    tokenized = " ".join(words)
    start = tokenized.find(pred_text)
    characters = [i for i, character in enumerate(orig_text) if character != " "]
    if start < 0:
        problem = "Unable to find text"
    elif len(characters) != len(tokenized) - tokenized.count(" "):
        problem = "Length not equal after stripping spaces"
    elif not pred_text or pred_text != pred_text.strip(" "):
        problem = "Couldn't map the first or last character"
    else:
        first = start - tokenized.count(" ", 0, start)
        last = first + len(pred_text) - pred_text.count(" ") - 1
        return slice(characters[first], characters[last] + 1)
    if verbose_logging:
        tf.logging.info("%s: %r in %r", problem, pred_text[:300], orig_text[:300])
    return slice(0, len(orig_text))
