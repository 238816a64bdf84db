"""Reads the vocabulary of a folder in Hugging Face's layout and checks its tokenizer.

An encoder knows only the word pieces that it was trained on. So the folder's tokenizer,
run by the library `tokenizers`, must give the ids of `tokenization.FullTokenizer` for
`PROBE_TEXTS` and for each added token.
"""
# ruff: noqa: RUF001  (the probe texts)

import collections
import json
import os
import re
from typing import NamedTuple

import tokenizers
from absl import logging

import tokenization
from errors import UserError, printable
from exchange import hf_files
from inputs import features
from system import files

VOCAB_NAME = "vocab.txt"
CONFIG_NAME = "tokenizer_config.json"
_TOKENIZER_NAME = "tokenizer.json"

# The texts avoid what all tokenizers of Hugging Face treat unlike Google's: words of
# 101 to 200 characters ([UNK] there), special tokens in a text (not split there), the
# final sigma, and characters for private use.
PROBE_TEXTS = (
    "The quick BROWN fox jumps over the lazy dogs, unaffable Embeddings.",
    "Café CAFÉ naïve Ångström São Paulo über Straße İstanbul Ёлка",
    "cafe\u0301 A\u030angstro\u0308m e\u0302\u0301",  # decomposed
    "don't well-known e-mail@x.org #tag C++ a/b <b> $5.00 (50%) `x` ^_^ ~ | { } [ ]",
    "“quoted” ‘x’ — – … « » ¿qué? ¡no! § ¶ • † ‰ € £ ¥ © ®",
    "3.14 1,000,000 007 1e-5 x² ½ № ١٢٣ ४२",
    "中文字符 and 漢字かな交じり文、東京タワー。 \U00020000 \uf900x",
    "한국어 대한민국 Привет, МИР! Ελληνική हिन्दी مَرْحَبًا ภาษาไทย tiếng Việt",
    "😀 👍🏽 👩\u200d👩\u200d👧 ☃ ❤\ufe0f 🇩🇪",
    "a\u0000b c\u200bd e\ufefff g\u00adh i\ufffdj k\u0007l m\u007fn o\u0085p",
    "a\tb\nc\rd\u00a0e\u2003f\u3000g  h\u2028i\u202fj\u000bk\u000cl",
    "a" * 100 + " " + "un" * 50 + " " + "a" * 201,
    "## ##ing # #ing",
    "",
)
_USUAL_TOKENS = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}

# Classes of tokenizers that split as BERT's does.
_TOKENIZER_CLASS = re.compile(r"(\w*Bert|Electra|LayoutLM|Lxmert)Tokenizer(Fast)?")
# Entries of JSON files with tokens that are never split.
_TOKEN_LISTS = (
    "added_tokens_decoder",
    "additional_special_tokens",
    "extra_special_tokens",
    "never_split",
)
# Entry of tokenizer_config.json -> entry of the normalizer that it replaces.
_NORMALIZER_ENTRIES = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}


class _Settings(NamedTuple):
    """The JSON files of a tokenizer, by their names; {} for a missing one."""

    tokenizer_config: dict
    tokenizer: dict
    special_tokens_map: dict
    added_tokens: dict
    sentence_bert_config: dict


class Vocabulary(NamedTuple):
    """A vocabulary, and the case of the text that its encoder reads."""

    path: str
    content: bytes  # as vocab.txt holds it
    ids: collections.OrderedDict[str, int]
    lower_case: bool | None  # None: the folder does not state it


def read(folder, model_config, config_path):
    """Reads the `Vocabulary` of the encoder in a folder, and checks its tokenizer.

    `model_config` is the content of its `config.json`, a dict.

    Raises:
      UserError: the vocabulary is missing, damaged or larger than the model's, or the
        tokenizer gives other ids than BERT's.
    """
    paths = [os.path.join(folder, name + ".json") for name in _Settings._fields]
    settings = _Settings(
        *(hf_files.read_json(path) if os.path.lexists(path) else {} for path in paths)
    )
    config, content = settings.tokenizer_config, settings.tokenizer
    config.setdefault("tokenizer_class", model_config.get("tokenizer_class"))
    vocab_size = model_config["vocab_size"]
    path = os.path.join(folder, VOCAB_NAME)
    if os.path.isfile(path):
        lines = files.read(path, tokenization.MAX_VOCAB_BYTES, "fetch it again")
    elif content:
        path = os.path.join(folder, _TOKENIZER_NAME)
        lines = _vocab_lines(content, vocab_size, path)
    else:
        raise UserError(
            "There is neither %s nor %s in `input_dir`=%s. Only encoders with a "
            "vocabulary of BERT's kind can be converted."
            % (VOCAB_NAME, _TOKENIZER_NAME, folder)
        )
    ids = tokenization.parse_vocab(lines, path)
    tokenization.require_tokens(ids, path)
    features.check_vocabulary(path, ids, vocab_size, config_path)
    if len(ids) < vocab_size:
        logging.warning(
            "%s has %d of the %d tokens of config.json's vocab_size: the other rows of "
            "the word embeddings are never used." % (path, len(ids), vocab_size)
        )
    tokenizer = _load_tokenizer(folder, settings, ids)
    _check_same_ids(ids, path, tokenizer)
    is_lowered = bool(settings.sentence_bert_config.get("do_lower_case"))
    added = _added_tokens(settings)
    lower_case = _detect_case(folder, ids, tokenizer, added, is_lowered)
    is_stated = content or is_lowered or config.get("do_lower_case") is not None
    return Vocabulary(path, lines, ids, lower_case if is_stated else None)


def log_case(vocabulary):
    """Logs the `do_lower_case` that the encoder of a `Vocabulary` needs."""
    cases = (
        (vocabulary.lower_case, "its tokenizer"),
        (tokenization.detect_lower_case(vocabulary.ids), "its word pieces"),
        (True, "the default of transformers"),
    )
    case, source = next(item for item in cases if item[0] is not None)
    logging.info("By %s, run this encoder with `do_lower_case`=%s", source, case)


def warn_of_case(model_name, do_lower_case):
    """Warns where the name of a model, as "bert-base-cased", states another case."""
    found = re.search("(un)?cased", model_name)
    if found and bool(found.group(1)) != do_lower_case:
        logging.warning(
            "`do_lower_case`=%s does not fit a model called %s: check which one it "
            "needs." % (do_lower_case, printable(model_name, 100))
        )


def _load_tokenizer(folder, settings, ids):
    """Loads a tokenizer, without truncation and padding, as transformers does.

    `settings` is a `_Settings`, `ids` maps the vocabulary's tokens to ids.
    """
    content, config = settings.tokenizer, settings.tokenizer_config
    try:
        changes = _changed_settings(config, has_file=bool(content))
        if content:
            if changes:
                content["normalizer"].update(changes)
            tokenizer = tokenizers.Tokenizer.from_str(json.dumps(content))
        else:
            special = {**settings.special_tokens_map, **config}
            for name in ("cls_token", "sep_token", "unk_token"):
                if special.get(name) is not None:
                    changes[name] = _token_text(special[name])
            tokenizer = tokenizers.BertWordPieceTokenizer(dict(ids), **changes)
        tokenizer.add_special_tokens(_added_tokens(settings))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        for text in PROBE_TEXTS:
            tokenizer.encode(text)  # Fails without a token for unknown words.
    except Exception as error:  # The library raises no other class.
        raise UserError(
            "The JSON files in `input_dir`=%s do not make BERT's tokenizer: %s. Fetch "
            "them again, or choose another encoder." % (folder, printable(str(error)))
        ) from None
    return tokenizer


def _changed_settings(config, has_file):
    """Settings of the normalizer that tokenizer_config.json replaces."""
    name = config["tokenizer_class"]
    if name is not None and not _TOKENIZER_CLASS.fullmatch(str(name)):
        if has_file:
            return {}  # Of a general class, which tokenizer.json alone defines.
        raise ValueError(
            "tokenizer_class is %r in %s or config.json, and without a %s only "
            "BertTokenizer and classes derived from it can be converted"
            % (name, CONFIG_NAME, _TOKENIZER_NAME)
        )
    if not (has_file or config.get("do_basic_tokenize", True)):
        return dict.fromkeys(_NORMALIZER_ENTRIES.values(), False)
    return {
        changed: config[entry]
        for entry, changed in _NORMALIZER_ENTRIES.items()
        if config.get(entry) is not None
    }


def _added_tokens(settings):
    """The texts that a tokenizer never splits, sorted."""
    tokens = [*settings.added_tokens, *settings.tokenizer.get("added_tokens", ())]
    for stated in (settings.tokenizer_config, settings.special_tokens_map):
        for entry in _TOKEN_LISTS:
            value = stated.get(entry) or ()
            tokens += value.values() if isinstance(value, dict) else value
    return sorted(set(map(_token_text, tokens)))


def _token_text(token):
    """The text of a token, which may be an object of text and settings."""
    return token.get("content") if isinstance(token, dict) else token


def _vocab_lines(content, vocab_size, path):
    """The vocabulary of a tokenizer.json as lines of a vocab.txt."""
    model = content.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    ids = list(vocab.values()) if isinstance(vocab, dict) else [None]
    are_ids = all(type(i) is int and 0 <= i < vocab_size for i in ids)
    if not are_ids or len(set(ids)) < len(ids):
        raise UserError(
            "%s: the tokens in its vocab must have different ids from 0 to %d, the "
            "vocab_size in config.json less 1. Use the two files of the same encoder."
            % (path, vocab_size - 1)
        )
    lines = [""] * (max(ids, default=0) + 1)
    for token, index in vocab.items():
        if _is_line(token):
            lines[index] = token
    return "".join(line + "\n" for line in lines).encode("utf-8")


def _is_line(token):
    """Whether a token can be a line of vocab.txt; another one leaves its line empty."""
    return token.split() == [token] and token == token.encode(errors="ignore").decode()


def _check_same_ids(ids, path, tokenizer):
    """Refuses two files that give a token different ids."""
    for token, index in tokenizer.get_vocab(with_added_tokens=False).items():
        if _is_line(token) and ids.get(token) != index:
            raise UserError(
                "%s and %s beside it disagree, for one on the token %s. Use the files "
                "of the same encoder."
                % (path, _TOKENIZER_NAME, printable(json.dumps(token), 100))
            )


def _detect_case(folder, ids, tokenizer, added, is_lowered):
    """The `do_lower_case` with which BERT's tokenizer equals that of a folder.

    `added` lists texts that it never splits; `is_lowered` tells whether text is
    lower-cased before it.
    """
    texts = list(PROBE_TEXTS)
    for token in added:
        texts += [] if token in _USUAL_TOKENS else [token, "a%sb" % token]
    wordpiece = tokenization.WordpieceTokenizer(ids)
    differences = []
    for lower_case in (True, False):
        basic = tokenization.BasicTokenizer(lower_case)
        for place, text in enumerate(texts):
            theirs = tokenizer.encode(text.lower() if is_lowered else text)
            pieces = wordpiece.tokenize(" ".join(basic.tokenize(text)))
            tokens = ["[CLS]", *pieces, "[SEP]"]
            if theirs.ids != tokenization.convert_tokens_to_ids(ids, tokens):
                differences.append((place, text, theirs.tokens, lower_case, tokens))
                break
        else:
            return lower_case
    # Shows a difference with the case for which more of the texts agree.
    _, text, theirs, lower_case, tokens = max(differences)
    shown = (repr(text), " ".join(theirs), " ".join(tokens))
    text, theirs, tokens = map(printable, shown)
    raise UserError(
        "The tokenizer in `input_dir`=%s splits %s into %s; BERT's tokenizer with "
        "`do_lower_case`=%s splits it into %s. An encoder knows only the tokens that "
        "it was trained on: choose another one, or, if your texts hold nothing of the "
        "kind, remove that setting or token from the tokenizer's JSON files."
        % (folder, text, theirs, lower_case, tokens)
    )
