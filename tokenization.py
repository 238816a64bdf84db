"""BERT's tokenization: text to word pieces to ids.

A text is cleaned and split at white space. Each word is normalized (case and accents),
split at punctuation, and then into the longest word pieces of the vocabulary, from left
to right. `FullTokenizer` does this once per distinct word.
"""

import collections
import re
import unicodedata

from absl import logging

from errors import UserError
from system import files

MAX_VOCAB_BYTES = 1 << 24  # vocabularies of a hundred languages: a tenth of that

UNKNOWN_TOKEN = "[UNK]"
PADDING_TOKEN = "[PAD]"
REQUIRED_TOKENS = ("[CLS]", "[SEP]", UNKNOWN_TOKEN)

# Thresholds of `detect_lower_case`.
_MIN_LETTER_PIECES = 1000
_MIN_LETTER_FRACTION = 0.5  # of all pieces; below it most text has no case
_MIN_CAPITALS_IF_CASED = 0.05  # of the pieces with letters; a third is usual
_MAX_CAPITALS_IF_UNCASED = 0.002

# Google's releases, by <name> in .../<name>/bert_model.ckpt.
_RELEASES = {  # value: whether the release is uncased
    "uncased_L-24_H-1024_A-16": True,
    "uncased_L-12_H-768_A-12": True,
    "multilingual_L-12_H-768_A-12": True,
    "chinese_L-12_H-768_A-12": True,
    "cased_L-12_H-768_A-12": False,
    "cased_L-24_H-1024_A-16": False,
    "multi_cased_L-12_H-768_A-12": False,
}
_RELEASE_PATH = re.compile(r".*?([A-Za-z0-9_-]+)/bert_model\.ckpt")

# Blocks of Chinese characters, first and last code point; not Hangul, Hiragana and
# Katakana, which form words.
_CJK_BLOCKS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)

# Bounds of `FullTokenizer`'s cache of words.
_MAX_CACHED_WORDS = 1 << 18
_MAX_CACHED_LENGTH = 64


def validate_case_matches_checkpoint(do_lower_case, init_checkpoint):
    """Checks `do_lower_case` against the name of a Google release, if it is one.

    Raises:
      UserError: the release needs the other setting.
    """
    given = bool(do_lower_case)
    match = _RELEASE_PATH.match(init_checkpoint or "")
    expected = _RELEASES.get(match and match[1], given)
    if given != expected:
        case = "lower-cased" if expected else "cased"
        raise UserError(
            "`do_lower_case`=%s does not fit `init_checkpoint`=%s: %s was pre-trained "
            "on %s text. Set `do_lower_case`=%s, or, if the folder's name misleads, "
            "rename the folder." % (given, init_checkpoint, match[1], case, expected)
        )


def _letter_pieces(vocab):
    """Lists of the pieces with cased letters, and with capital letters."""
    letters = [
        piece
        for piece in vocab
        # Tokens such as [CLS] and <S> do not occur in text.
        if piece.lower() != piece.upper() and (piece[0] + piece[-1]) not in ("[]", "<>")
    ]
    return letters, [piece for piece in letters if piece != piece.lower()]


def detect_lower_case(vocab):
    """Detects whether a vocabulary, a collection of pieces, is uncased.

    Returns:
      False if many pieces have capital letters, True if hardly any; None if unclear:
      in between, in small vocabularies and in scripts without case.
    """
    letters, capitals = _letter_pieces(vocab)
    if len(letters) < _MIN_LETTER_PIECES:
        return None
    if len(capitals) >= _MIN_CAPITALS_IF_CASED * len(letters):
        return False
    few_capitals = len(capitals) <= _MAX_CAPITALS_IF_UNCASED * len(letters)
    has_case = len(letters) >= _MIN_LETTER_FRACTION * len(vocab)
    return True if few_capitals and has_case else None


def check_case(do_lower_case, is_given, vocab, vocab_file):
    """Checks `do_lower_case` against the vocabulary.

    A mismatch is a warning if the user set the flag, `is_given`.

    Raises:
      UserError: the default does not fit.
    """
    given, detected = bool(do_lower_case), detect_lower_case(vocab)
    if detected in (None, given):
        return
    letters, capitals = map(len, _letter_pieces(vocab))
    reason = "words with a capital letter become %s" % UNKNOWN_TOKEN
    if given:
        reason = "lower-cased text never meets them"
    problem = (
        "`do_lower_case`=%s does not fit `vocab_file`=%s: of its %d pieces with "
        "letters %d have capital ones, and %s"
        % (given, vocab_file, letters, capitals, reason)
    )
    if is_given:
        logging.warning("%s. The flag is obeyed.", problem)
        return
    raise UserError(
        "%s. It is the default: give `do_lower_case`=%s, or `do_lower_case`=%s to use "
        "it anyway." % (problem, detected, given)
    )


def convert_to_unicode(text):
    """Decodes UTF-8 bytes without invalid ones; returns `str` unchanged."""
    if isinstance(text, str):
        return text
    if isinstance(text, bytes):
        return text.decode("utf-8", "ignore")
    raise ValueError("Not a text: %r of type %s" % (text, type(text).__name__))


def printable_text(text):
    """Decodes a text for `print` and the log; the original's function."""
    return convert_to_unicode(text)


def load_vocab(vocab_file):
    """Reads a vocabulary from a path, see `parse_vocab`."""
    remedy = "give the vocab.txt that came with the checkpoint, `vocab_file`"
    return parse_vocab(files.read(vocab_file, MAX_VOCAB_BYTES, remedy), vocab_file)


def parse_vocab(content, source):
    """Parses a vocabulary: one token per line; the id is the line's index from 0.

    For duplicate tokens, as in some published vocabularies, the last line gives the id,
    as in Google's program and in transformers.

    Args:
      content: bytes of UTF-8; white space around a token is dropped.
      source: the content's origin, for messages.

    Returns:
      `OrderedDict` token -> id.

    Raises:
      UserError: empty or not UTF-8; the message gives the line, from 1.
    """
    if not content.strip():
        raise UserError(
            "The vocabulary %s is empty. Give the vocab.txt that came with the "
            "checkpoint, one token a line, `vocab_file`." % source
        )
    # Tokens of some vocabularies contain other line separators than "\n".
    lines = content.rstrip().split(b"\n")  # Trailing blank lines are no tokens.
    vocab = collections.OrderedDict()
    for index, line in enumerate(lines):
        try:
            token = line.decode("utf-8-sig" if index == 0 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise UserError(
                "%s, line %d: %r is not UTF-8 (%s). The file has to be UTF-8 text "
                "with one token a line." % (source, index + 1, line[:40], error.reason)
            ) from error
        vocab[token] = index
    return vocab


def require_tokens(vocab, source):
    """Raises a `UserError` if one of `REQUIRED_TOKENS` is not in a vocabulary."""
    missing = [token for token in REQUIRED_TOKENS if token not in vocab]
    if missing:
        raise UserError(
            "The vocabulary %s lacks %s, and BERT's inputs need %s. Give "
            "the vocab.txt that came with the checkpoint, `vocab_file`."
            % (source, ", ".join(missing), ", ".join(REQUIRED_TOKENS))
        )


def convert_by_vocab(vocab, items):
    """Returns `[vocab[item] for item in items]`."""
    return [vocab[item] for item in items]


def convert_tokens_to_ids(vocab, tokens):
    """Returns the id of each token; `vocab` maps token -> id."""
    return convert_by_vocab(vocab, tokens)


def convert_ids_to_tokens(inv_vocab, ids):
    """Returns the token of each id; `inv_vocab` maps id -> token."""
    return convert_by_vocab(inv_vocab, ids)


def whitespace_tokenize(text):
    """Splits a text at white space; the original's function."""
    return text.split()


class FullTokenizer:
    """Splits text into the word pieces of a vocabulary.

    Attributes:
      vocab: `OrderedDict` token -> id.
      inv_vocab: dict id -> token.
    """

    def __init__(self, vocab_file, do_lower_case=True):
        """Loads a vocabulary; see `parse_vocab` and `require_tokens` for errors.

        `do_lower_case` also strips accents; it is for uncased models.
        """
        self.vocab = load_vocab(vocab_file)
        require_tokens(self.vocab, vocab_file)
        self.inv_vocab = {index: token for token, index in self.vocab.items()}
        self.basic_tokenizer = BasicTokenizer(do_lower_case=do_lower_case)
        self.wordpiece_tokenizer = WordpieceTokenizer(vocab=self.vocab)
        self._cache = {}

    def tokenize(self, text):
        """Returns the word pieces of `text` (`str` or UTF-8 bytes), a list of str."""
        pieces, cache = [], self._cache
        for word in _clean_words(text):
            cached = cache.get(word)
            if cached is None:
                parts = self.basic_tokenizer.split_word(word)
                cached = self.wordpiece_tokenizer.tokenize(" ".join(parts))
                is_short = len(word) <= _MAX_CACHED_LENGTH
                if is_short and len(cache) < _MAX_CACHED_WORDS:
                    cache[word] = cached
            pieces.extend(cached)
        return pieces

    def convert_tokens_to_ids(self, tokens):
        """Returns the vocabulary's id of each token."""
        return convert_by_vocab(self.vocab, tokens)

    def convert_ids_to_tokens(self, ids):
        """Returns the vocabulary's token of each id."""
        return convert_by_vocab(self.inv_vocab, ids)


class BasicTokenizer:
    """Splits text into words, at white space and punctuation."""

    def __init__(self, do_lower_case=True):
        """See `FullTokenizer`."""
        self.do_lower_case = do_lower_case

    def tokenize(self, text):
        """Returns the words of `text` (`str` or UTF-8 bytes), a list of str."""
        return [part for word in _clean_words(text) for part in self.split_word(word)]

    def split_word(self, word):
        """Returns the parts of one cleaned word, a list of str."""
        if self.do_lower_case:
            word = word.lower()
            if not word.isascii():
                word = _strip_accents(word)
        return word.translate(_SPACED_PUNCTUATION).split()


class WordpieceTokenizer:
    """Splits words into the longest pieces of a vocabulary."""

    def __init__(self, vocab, unk_token=UNKNOWN_TOKEN, max_input_chars_per_word=200):
        """`vocab` is a mapping or set of pieces.

        Words outside the vocabulary, and too long ones, become `unk_token`.
        """
        self.vocab = vocab
        self.unk_token = unk_token
        self.max_input_chars_per_word = max_input_chars_per_word
        self._longest_piece = max(map(len, vocab), default=0)

    def tokenize(self, text):
        """Splits each word of a text greedily.

        Returns:
          List of str: `"unaffable"` gives `["un", "##aff", "##able"]`.
        """
        words = convert_to_unicode(text).split()
        return [piece for word in words for piece in self._split_word(word)]

    def _split_word(self, word):
        """Returns the pieces of one word, or `[unk_token]`."""
        if len(word) > self.max_input_chars_per_word:
            return [self.unk_token]
        pieces, start = [], 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(min(len(word), start + self._longest_piece), start, -1):
                piece = prefix + word[start:end]
                if piece in self.vocab:
                    break
            else:
                return [self.unk_token]
            pieces.append(piece)
            start = end
        return pieces


class _CharacterTable(dict):
    """A lazy table for `str.translate` from a function of a character."""

    def __init__(self, rule):
        super().__init__()
        self._rule = rule

    def __missing__(self, code_point):
        replacement = self[code_point] = self._rule(chr(code_point))
        return replacement


def _clean_words(text):
    """Returns the cleaned words of a text; Chinese characters are words."""
    return convert_to_unicode(text).translate(_CLEANED).split()


# The original's functions, which other programs import.


def _is_whitespace(char):
    """Whether a character separates words."""
    return char in "\t\n\r" or unicodedata.category(char) == "Zs"


def _is_control(char):
    """Whether a character is a control character, other than white space."""
    return not _is_whitespace(char) and unicodedata.category(char) in ("Cc", "Cf")


def _is_punctuation(char):
    """Whether a character is a separate word.

    This includes all ASCII symbols, also "^", "$" and "`", which are not punctuation in
    Unicode.
    """
    is_ascii_symbol = "!" <= char <= "~" and not char.isalnum()
    return is_ascii_symbol or unicodedata.category(char).startswith("P")


def _clean_character(char):
    """Normalizes white space, drops control characters, separates Chinese ones."""
    if _is_whitespace(char):
        return " "
    # NUL, and the replacement for undecodable input.
    if char in "\0\ufffd" or _is_control(char):
        return ""
    if any(first <= ord(char) <= last for first, last in _CJK_BLOCKS):
        return " %s " % char
    return char


def _strip_accents(text):
    """Decomposes a text (NFD) and drops combining marks."""
    return "".join(
        char
        for char in unicodedata.normalize("NFD", text)
        if unicodedata.category(char) != "Mn"
    )


_CLEANED = _CharacterTable(_clean_character)
_SPACED_PUNCTUATION = _CharacterTable(
    lambda char: " %s " % char if _is_punctuation(char) else char
)


def normalize_character(char, do_lower_case):
    """Normalizes a character without context; spaces separate words.

    Character by character this gives the words of `BasicTokenizer`, except for a
    capital sigma at the end of a word, whose lower case is another letter.
    """
    text = _clean_character(char)
    if do_lower_case:
        text = _strip_accents(text.lower())
    text = text.translate(_SPACED_PUNCTUATION)
    return "".join(" " if each.isspace() else each for each in text)
