"""Reads the vocabulary of a folder in Hugging Face's layout, and how text is cut there.

The vocabulary is `vocab.txt`, or a part of `tokenizer.json`, which alone folders of
transformers 5 have. Whatever file says that text is cut otherwise than BERT does it is
believed: an encoder knows only the pieces that it was trained on.
"""

import collections
import json
import os
from typing import NamedTuple

from absl import logging

import tokenization
from errors import UserError, printable
from exchange.hf_files import read_json
from inputs import features
from system import files

VOCAB_NAME = "vocab.txt"
CONFIG_NAME = "tokenizer_config.json"
_WHOLE_NAME = "tokenizer.json"
_SPECIAL_NAME = "special_tokens_map.json"
_ADDED_NAME = "added_tokens.json"

# Classes that cut text as BERT's does, each with and without "Fast" after it.
_CLASSES = (
    "BertTokenizer",
    "ConvBertTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "LayoutLMTokenizer",
    "LxmertTokenizer",
    "MobileBertTokenizer",
    "SqueezeBertTokenizer",
)
# They do what tokenizer.json says.
_GENERIC_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
_SPECIAL_TOKENS = {
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "unk_token": tokenization.UNKNOWN_TOKEN,
}
_USUAL_TOKENS = {*_SPECIAL_TOKENS.values(), tokenization.PADDING_TOKEN, "[MASK]"}
# Entries of tokenizer_config.json and what they have to be, where they are there.
_NEEDED = {
    "do_basic_tokenize": True,
    "word_tokenizer_type": "basic",
    "subword_tokenizer_type": "wordpiece",
}


class Vocabulary(NamedTuple):
    """A vocabulary, and what its folder says of its case."""

    path: str
    content: bytes  # as vocab.txt holds it
    ids: collections.OrderedDict[str, int]
    lower_case: bool | None  # None: the folder does not say


def read(folder, model_config, config_path):
    """Reads the vocabulary of an encoder, and checks how its text is cut.

    Args:
      folder: its path.
      model_config: dict, the content of its `config.json`.
      config_path: where this stands, for messages.

    Returns:
      A `Vocabulary`.

    Raises:
      UserError: the vocabulary is missing, damaged or larger than the model's, or the
        encoder was trained on pieces that are not those of BERT's tokenizer. What
        differs in some words alone gets a warning.
    """
    path, whole_path, config_path_here = (
        os.path.join(folder, name) for name in (VOCAB_NAME, _WHOLE_NAME, CONFIG_NAME)
    )
    stated = _read_if_there(config_path_here)
    whole = _read_if_there(whole_path)
    if "tokenizer_class" in stated:
        _check_class(stated["tokenizer_class"], whole, config_path_here)
    else:
        _check_class(model_config.get("tokenizer_class"), whole, config_path)
    lower_case = _check_config(stated, config_path_here)
    special_path = os.path.join(folder, _SPECIAL_NAME)
    _check_special_tokens(_read_if_there(special_path), special_path)
    if whole:
        by_whole = _check_whole(whole, whole_path)
        lower_case = by_whole if lower_case is None else lower_case
    _tell_added_tokens(folder, stated, whole)
    vocab_size = model_config["vocab_size"]
    if os.path.isfile(path):
        content = files.read(path, tokenization.MOST_VOCAB_BYTES, "fetch it anew")
    elif whole:
        path, content = whole_path, _lines(whole, vocab_size, whole_path)
    else:
        raise UserError(
            "There is neither %s nor %s in --input_dir=%s. Only encoders with a "
            "vocabulary of BERT's kind can be converted."
            % (VOCAB_NAME, _WHOLE_NAME, folder)
        )
    ids = tokenization.parse_vocab(content, path)
    tokenization.require_tokens(ids, path)
    features.check_vocabulary(path, ids, vocab_size, config_path)
    if whole and path != whole_path:
        _check_agreement(ids, path, whole["model"]["vocab"], whole_path)
    if len(ids) < vocab_size:
        logging.warning(
            "%s has %d tokens, vocab_size is %d: %d rows of the word embeddings are "
            "never used.",
            path,
            len(ids),
            vocab_size,
            vocab_size - len(ids),
        )
    return Vocabulary(path, content, ids, lower_case)


def tell_case(vocabulary):
    """Says which `--do_lower_case` an encoder needs.

    Args:
      vocabulary: a `Vocabulary`.
    """
    fitting = tokenization.fitting_lower_case(vocabulary.ids)
    folder = os.path.dirname(vocabulary.path)
    stated = vocabulary.lower_case
    if stated is None and fitting is None:
        logging.info(
            "Nothing in %s says whether text is to be lower-cased; if so, transformers "
            "does it, as --do_lower_case=True here.",
            folder,
        )
    elif stated is None:
        logging.info(
            "By the pieces in %s, run this encoder with --do_lower_case=%s",
            vocabulary.path,
            fitting,
        )
    else:
        logging.info(
            "By the tokenizer in %s, run this encoder with --do_lower_case=%s",
            folder,
            stated,
        )
        if fitting not in (None, stated):
            logging.warning(
                "The pieces in %s look like those of --do_lower_case=%s: make sure "
                "which one this encoder needs.",
                vocabulary.path,
                fitting,
            )


def _read_if_there(path):
    return read_json(path) if os.path.lexists(path) else {}


def _shown(value):
    return printable(json.dumps(value), 100)


def _refuse(path, entry, value, allowed):
    raise UserError(
        "%s: %s is %s, and only %s can be: this encoder was trained on pieces that "
        "BERT's tokenizer does not make. Choose another encoder for --input_dir, or, "
        "if you cut your texts beforehand as it needs them, change that entry."
        % (path, entry, _shown(value), allowed)
    )


def _tell_loss(path, entry, value, here):
    logging.warning(
        "%s: %s is %s, which cannot be kept: %s. Some words are cut into other pieces "
        "than those that this encoder was trained on.",
        path,
        entry,
        _shown(value),
        here,
    )


def _check_class(name, whole, path):
    """Refuses tokenizers that are not BERT's, by their class."""
    allowed = [kind + ending for kind in _CLASSES for ending in ("", "Fast")]
    if whole:
        allowed += _GENERIC_CLASSES
    if name is not None and name not in allowed:
        _refuse(path, "tokenizer_class", name, "BertTokenizer and others that cut so")


def _check_config(stated, path):
    """Checks a tokenizer_config.json; returns its do_lower_case or None."""
    for entry, needed in _NEEDED.items():
        value = stated.get(entry)
        if value is not None and value != needed:
            _refuse(path, entry, value, json.dumps(needed))
    _check_special_tokens(stated, path)
    if stated.get("never_split"):
        _tell_loss(path, "never_split", stated["never_split"], "every word is cut here")
    if stated.get("tokenize_chinese_chars", True) is not True:
        value = stated["tokenize_chinese_chars"]
        _tell_loss(path, "tokenize_chinese_chars", value, _CHINESE)
    lower_case = stated.get("do_lower_case")
    lower_case = lower_case if isinstance(lower_case, bool) else None
    _check_accents(stated.get("strip_accents"), lower_case, path, "strip_accents")
    return lower_case


_CHINESE = "here each Chinese character is a word"


def _check_accents(strips, lower_case, path, entry):
    if strips is not None and lower_case is not None and strips is not lower_case:
        here = "here accents are stripped where text is lower-cased, and not elsewhere"
        _tell_loss(path, entry, strips, here)


def _check_special_tokens(stated, path):
    for entry, needed in _SPECIAL_TOKENS.items():
        value = stated.get(entry)
        if value is not None and _text(value) != needed:
            _refuse(path, entry, value, needed)


def _text(token):
    """The text of a token, which may be an object of text and settings."""
    return token.get("content") if isinstance(token, dict) else token


def _check_whole(whole, path):
    """Checks a tokenizer.json; returns whether it lower-cases."""
    parts = {}
    for part, kind in (
        ("model", "WordPiece"),
        ("normalizer", "BertNormalizer"),
        ("pre_tokenizer", "BertPreTokenizer"),
    ):
        parts[part] = entries = whole.get(part)
        found = entries
        if isinstance(entries, dict):
            # The first versions do not say the model's.
            default = kind if "max_input_chars_per_word" in entries else None
            found = entries.get("type", default)
        if found != kind:
            _refuse(path, "the type of its %s" % part, found, kind)
    model, normalizer = parts["model"], parts["normalizer"]
    for entry, needed in (
        ("unk_token", tokenization.UNKNOWN_TOKEN),
        ("continuing_subword_prefix", "##"),
    ):
        if model.get(entry) != needed:
            _refuse(path, "model.%s" % entry, model.get(entry), needed)
    lower_case = normalizer.get("lowercase")
    if not isinstance(lower_case, bool) or not isinstance(model.get("vocab"), dict):
        raise UserError(
            '%s: "lowercase" has to be true or false in its normalizer, and "vocab" an '
            "object in its model. Fetch it anew." % path
        )
    for entry, here in (
        ("clean_text", "here control characters are left out"),
        ("handle_chinese_chars", _CHINESE),
    ):
        if normalizer.get(entry) is not True:
            _tell_loss(path, "normalizer.%s" % entry, normalizer.get(entry), here)
    _check_accents(
        normalizer.get("strip_accents"), lower_case, path, "normalizer.strip_accents"
    )
    return lower_case


def _tell_added_tokens(folder, stated, whole):
    """Tells of tokens that are cut from text as a whole there."""
    decoder, added = stated.get("added_tokens_decoder"), whole.get("added_tokens")
    tokens = [
        *(decoder.values() if isinstance(decoder, dict) else ()),
        *(added if isinstance(added, list) else ()),
        *_read_if_there(os.path.join(folder, _ADDED_NAME)),
    ]
    more = sorted({str(_text(token)) for token in tokens} - _USUAL_TOKENS)
    if more:
        logging.warning(
            "The tokenizer in %s has %d tokens more that are never cut there, such as "
            "%s; here they are text like other text.",
            folder,
            len(more),
            _shown(more[0]),
        )


def _lines(whole, vocab_size, path):
    """The vocabulary of a tokenizer.json as lines of a vocab.txt."""
    ids = whole["model"]["vocab"]
    if not all(type(i) is int and 0 <= i < vocab_size for i in ids.values()) or (
        len(set(ids.values())) != len(ids)
    ):
        raise UserError(
            "%s: the tokens in its vocab have to have different ids from 0 to %d, the "
            "vocab_size in config.json less 1. Use the two files of the same encoder."
            % (path, vocab_size - 1)
        )
    lines = [""] * (max(ids.values(), default=-1) + 1)
    for token, index in ids.items():
        if _can_be_met(token):
            lines[index] = token
    return "".join(line + "\n" for line in lines).encode("utf-8")


def _can_be_met(token):
    """Whether a token can be a piece of text: without white space, and of characters.

    Others keep their place as an empty line, since their own line would be another's.
    """
    return token.split() == [token] and token == token.encode(errors="ignore").decode()


def _check_agreement(ids, path, others, whole_path):
    """Refuses two files that give a token different ids."""
    for token, index in others.items():
        if _can_be_met(token) and ids.get(token) != index:
            raise UserError(
                "%s and %s beside it disagree, for one on the token %s. Use the files "
                "of the same encoder."
                % (path, os.path.basename(whole_path), _shown(token))
            )
