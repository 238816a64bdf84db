"""Text to word pieces to ids, exactly as BERT does it.

A text is cleaned and cut at white space, each of the words is folded (case and
accents) and cut at punctuation, and each part becomes the longest word pieces
that the vocabulary has, from left to right. All that follows the first cut looks
at one word at a time, so `FullTokenizer` computes it once per distinct word.
"""

import collections
import re
import unicodedata

from absl import logging

from errors import UserError
from system import files

MOST_VOCAB_BYTES = 1 << 24  # Those of a hundred languages have a tenth of that.

UNKNOWN_TOKEN = "[UNK]"
PADDING_TOKEN = "[PAD]"
# Without these the model's inputs cannot be written down at all.
REQUIRED_TOKENS = ("[CLS]", "[SEP]", UNKNOWN_TOKEN)

# When a vocabulary says which case it was made for: `fitting_lower_case`.
_LEAST_LETTER_PIECES = 1000
_LEAST_LETTER_SHARE = 0.5  # of all pieces; below it most text has no case
_LEAST_CAPITALS_IF_CASED = 0.05  # of the pieces with letters; a third is usual
_MOST_CAPITALS_IF_UNCASED = 0.002

# Names of Google's releases, as they stand in .../<name>/bert_model.ckpt.
_LOWER_CASE_MODELS = (
    "uncased_L-24_H-1024_A-16",
    "uncased_L-12_H-768_A-12",
    "multilingual_L-12_H-768_A-12",
    "chinese_L-12_H-768_A-12",
)
_CASED_MODELS = (
    "cased_L-12_H-768_A-12",
    "cased_L-24_H-1024_A-16",
    "multi_cased_L-12_H-768_A-12",
)
_RELEASE_PATH = re.compile(r".*?([A-Za-z0-9_-]+)/bert_model\.ckpt")

# Blocks of Chinese characters, first and last code point. Hangul, Hiragana and
# Katakana are written with spaces or in words and stay as they are.
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

# Bounds of the word memo: entries, and characters in a word worth keeping.
_MEMO_ENTRIES = 1 << 18
_MEMO_WORD_LENGTH = 64


def validate_case_matches_checkpoint(do_lower_case, init_checkpoint):
    """Checks `--do_lower_case` against the name of a Google release.

    Only a path `.../<name>/bert_model.ckpt` with one of the seven known names
    says anything; every other path passes.

    Args:
      do_lower_case: bool.
      init_checkpoint: path of the checkpoint, or None.

    Raises:
      UserError: the named model was trained with the other setting.
    """
    match = _RELEASE_PATH.match(init_checkpoint) if init_checkpoint else None
    if match is None:
        return
    name = match.group(1)
    if name in _LOWER_CASE_MODELS and not do_lower_case:
        kind, wanted = "lower-cased", "True"
    elif name in _CASED_MODELS and do_lower_case:
        kind, wanted = "cased", "False"
    else:
        return
    raise UserError(
        "--do_lower_case=%s does not fit --init_checkpoint=%s: %s was pre-trained on "
        "%s text. Set --do_lower_case=%s, or, if the folder's name misleads, rename "
        "the folder." % (bool(do_lower_case), init_checkpoint, name, kind, wanted)
    )


def _letter_pieces(vocab):
    """The pieces with letters of two cases, and those of them with a capital one."""
    letters = [
        piece
        for piece in vocab
        # Tokens such as [CLS] and <S> are not cut from text.
        if piece.lower() != piece.upper() and (piece[0] + piece[-1]) not in ("[]", "<>")
    ]
    return letters, [piece for piece in letters if piece != piece.lower()]


def fitting_lower_case(vocab):
    """Says which `do_lower_case` a vocabulary was made for.

    Args:
      vocab: mapping of pieces to ids.

    Returns:
      False if too many pieces have capital letters for one of lower-cased text; True
      if next to none have; None if this leaves doubt: in between, in small
      vocabularies and in those of scripts without case.
    """
    letters, capitals = _letter_pieces(vocab)
    if len(letters) < _LEAST_LETTER_PIECES:
        return None
    if len(capitals) >= _LEAST_CAPITALS_IF_CASED * len(letters):
        return False
    few_capitals = len(capitals) <= _MOST_CAPITALS_IF_UNCASED * len(letters)
    if few_capitals and len(letters) >= _LEAST_LETTER_SHARE * len(vocab):
        return True
    return None


def check_case(do_lower_case, is_given, vocab, vocab_file):
    """Holds `--do_lower_case` against the pieces of the vocabulary.

    Args:
      do_lower_case: bool.
      is_given: whether the user chose it; else it is a default.
      vocab: mapping of pieces to ids.
      vocab_file: its path, for the message.

    Raises:
      UserError: a default does not fit; a choice that does not gets a warning.
    """
    fitting = fitting_lower_case(vocab)
    if fitting in (None, bool(do_lower_case)):
        return
    letters, capitals = map(len, _letter_pieces(vocab))
    if do_lower_case:
        reason = "lower-cased text never meets them"
    else:
        reason = "words with a capital letter become %s" % UNKNOWN_TOKEN
    problem = (
        "--do_lower_case=%s does not fit --vocab_file=%s: of its %d pieces with "
        "letters %d have capital ones, and %s"
        % (bool(do_lower_case), vocab_file, letters, capitals, reason)
    )
    if is_given:
        logging.warning("%s. As the flag says so, the run goes on.", problem)
        return
    raise UserError(
        "%s. That is the default: give --do_lower_case=%s, or --do_lower_case=%s to go "
        "on all the same." % (problem, fitting, bool(do_lower_case))
    )


def convert_to_unicode(text):
    """Returns `text` as `str`; bytes are read as UTF-8, invalid ones are left out."""
    if isinstance(text, str):
        return text
    if isinstance(text, bytes):
        return text.decode("utf-8", "ignore")
    raise ValueError("Not a text: %r of type %s" % (text, type(text).__name__))


def printable_text(text):
    """Returns `text`, `str` or bytes, as a `str` fit for `print` and the log."""
    return convert_to_unicode(text)


def load_vocab(vocab_file):
    """Reads a vocabulary file, see `parse_vocab`.

    Args:
      vocab_file: path of the file.

    Returns:
      An `OrderedDict` token -> id.

    Raises:
      UserError: the file cannot be read, is empty or is not UTF-8.
    """
    remedy = "give the vocab.txt that came with the checkpoint, --vocab_file"
    return parse_vocab(files.read(vocab_file, MOST_VOCAB_BYTES, remedy), vocab_file)


def parse_vocab(content, source):
    """Reads a vocabulary: one token a line, the id is the line's number from 0.

    The last line of a token gives its id, as in Google's program and in transformers:
    some published vocabularies have a token twice, and the ids of its first lines are
    then never used. `features.check_vocabulary` tells of them.

    Args:
      content: bytes, UTF-8; white space around a token is dropped.
      source: where they come from, for the messages.

    Returns:
      An `OrderedDict` token -> id.

    Raises:
      UserError: it is empty or is not UTF-8; the message gives the line, from 1.
    """
    if not content.strip():
        raise UserError(
            "The vocabulary %s is empty. Give the vocab.txt that came with the "
            "checkpoint, one token a line, --vocab_file." % source
        )
    # Only "\n" ends a line: tokens of some vocabularies hold other separators.
    lines = content.rstrip().split(b"\n")  # Blank lines at the end are no tokens.
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
    """Refuses a vocabulary that lacks a token of `REQUIRED_TOKENS`.

    Args:
      vocab: mapping of tokens to ids.
      source: where it comes from, for the message.
    """
    missing = [token for token in REQUIRED_TOKENS if token not in vocab]
    if missing:
        raise UserError(
            "The vocabulary %s lacks %s, and BERT's inputs need %s. Give "
            "the vocab.txt that came with the checkpoint, --vocab_file."
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
    """Returns the parts of `text` between runs of white space."""
    return text.split()


class FullTokenizer:
    """From a text to the word pieces of one vocabulary.

    Attributes:
      vocab: `OrderedDict` token -> id.
      inv_vocab: dict id -> token.
    """

    def __init__(self, vocab_file, do_lower_case=True):
        """Loads the vocabulary.

        Args:
          vocab_file: path of the vocabulary, see `load_vocab`.
          do_lower_case: fold case and strip accents, as uncased models need it.

        Raises:
          UserError: the vocabulary is unusable or lacks a token of
            `REQUIRED_TOKENS`.
        """
        self.vocab = load_vocab(vocab_file)
        require_tokens(self.vocab, vocab_file)
        self.inv_vocab = {index: token for token, index in self.vocab.items()}
        self.basic_tokenizer = BasicTokenizer(do_lower_case=do_lower_case)
        self.wordpiece_tokenizer = WordpieceTokenizer(vocab=self.vocab)
        self._memo = {}

    def tokenize(self, text):
        """Returns the word pieces of `text` (`str` or UTF-8 bytes), a list of str."""
        pieces = []
        memo = self._memo
        for word in _clean_words(text):
            known = memo.get(word)
            if known is None:
                known = self._tokenize_word(word)
                if len(word) <= _MEMO_WORD_LENGTH:
                    if len(memo) >= _MEMO_ENTRIES:
                        memo.clear()
                    memo[word] = known
            pieces.extend(known)
        return pieces

    def convert_tokens_to_ids(self, tokens):
        """Returns the vocabulary's id of each token."""
        return convert_by_vocab(self.vocab, tokens)

    def convert_ids_to_tokens(self, ids):
        """Returns the vocabulary's token of each id."""
        return convert_by_vocab(self.inv_vocab, ids)

    def _tokenize_word(self, word):
        """Returns the pieces of one cleaned word, a tuple of str."""
        pieces = []
        for part in self.basic_tokenizer.split_word(word):
            pieces.extend(self.wordpiece_tokenizer.tokenize(part))
        return tuple(pieces)


class BasicTokenizer:
    """From a text to words: cleaning, case folding, cuts at punctuation."""

    def __init__(self, do_lower_case=True):
        """Sets whether `tokenize` folds case and strips accents."""
        self.do_lower_case = do_lower_case

    def tokenize(self, text):
        """Returns the words of `text` (`str` or UTF-8 bytes), a list of str."""
        words = []
        for word in _clean_words(text):
            words.extend(self.split_word(word))
        return words

    def split_word(self, word):
        """Returns the parts of one word that has no white space and is cleaned."""
        if self.do_lower_case:
            word = word.lower()
            if not word.isascii():
                word = _strip_accents(word)
        return word.translate(_SPACED_PUNCTUATION).split()


class WordpieceTokenizer:
    """From words to the longest pieces that a vocabulary has."""

    def __init__(self, vocab, unk_token=UNKNOWN_TOKEN, max_input_chars_per_word=200):
        """Keeps the vocabulary.

        Args:
          vocab: mapping or set of pieces; those within a word begin with "##".
          unk_token: what becomes of a word that the pieces cannot spell.
          max_input_chars_per_word: longer words become `unk_token` unseen.
        """
        self.vocab = vocab
        self.unk_token = unk_token
        self.max_input_chars_per_word = max_input_chars_per_word
        self._longest_piece = max(map(len, vocab), default=0)

    def tokenize(self, text):
        """Returns the pieces of `text`'s words, greedily the longest first.

        Args:
          text: words separated by white space, as `BasicTokenizer` gives them.

        Returns:
          A list of str: `"unaffable"` gives `["un", "##aff", "##able"]`.
        """
        pieces = []
        for word in convert_to_unicode(text).split():
            pieces.extend(self._split_word(word))
        return pieces

    def _split_word(self, word):
        """Returns the pieces of one word, or `[unk_token]`."""
        if len(word) > self.max_input_chars_per_word:
            return [self.unk_token]
        pieces = []
        start = 0
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
    """A table for `str.translate` that asks `rule` once for each character."""

    def __init__(self, rule):
        """Keeps `rule`: a function of a character that returns what replaces it."""
        super().__init__()
        self._rule = rule

    def __missing__(self, code_point):
        replacement = self[code_point] = self._rule(chr(code_point))
        return replacement


def _clean_words(text):
    """Returns the words of `text`, cleaned, Chinese characters on their own."""
    return convert_to_unicode(text).translate(_CLEANED).split()


# The names of the three character classes are the original's: other programs import
# them.


def _is_whitespace(char):
    """Whether a character separates words."""
    return char in "\t\n\r" or unicodedata.category(char) == "Zs"


def _is_control(char):
    """Whether a character is dropped; unassigned and private ones are not."""
    return not _is_whitespace(char) and unicodedata.category(char) in ("Cc", "Cf")


def _is_punctuation(char):
    """Whether a character is a word of its own.

    All ASCII symbols count, also "^", "$" and "`", which Unicode files under symbols.
    """
    is_ascii_symbol = "!" <= char <= "~" and not char.isalnum()
    return is_ascii_symbol or unicodedata.category(char).startswith("P")


def _clean_character(char):
    """Replaces white space, drops what is no text, separates Chinese characters."""
    if _is_whitespace(char):
        return " "
    # NUL, and what stands for undecodable input.
    if char in "\0\ufffd" or _is_control(char):
        return ""
    if any(first <= ord(char) <= last for first, last in _CJK_BLOCKS):
        return " %s " % char
    return char


def _separate_punctuation(char):
    """Puts spaces around a punctuation character; returns others unchanged."""
    return " %s " % char if _is_punctuation(char) else char


def _strip_accents(text):
    """Returns `text` decomposed (NFD) and without its combining marks."""
    return "".join(
        char
        for char in unicodedata.normalize("NFD", text)
        if unicodedata.category(char) != "Mn"
    )


_CLEANED = _CharacterTable(_clean_character)
_SPACED_PUNCTUATION = _CharacterTable(_separate_punctuation)
