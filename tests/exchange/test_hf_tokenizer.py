"""The vocabulary and the tokenizer of a folder in Hugging Face's layout.

The encoders' vocabulary holds each character of the probe texts, so that every
difference in how text is split shows.
"""

import json

import pytest
from hf_layout import CONFIG, TOKENS, write_encoder, write_tokenizer

import tokenization
from errors import UserError
from exchange import conversion, hf_tokenizer

CHARACTERS = [
    c for text in hf_tokenizer.PROBE_TEXTS for c in text + text.lower() if c.strip()
]
PIECES = list(
    dict.fromkeys([*TOKENS[:4], *CHARACTERS, *("##" + c for c in CHARACTERS)])
)
# Beginnings of probe texts.
ACCENTS, CHINESE = "'Café CAFÉ", "'中文"


@pytest.fixture
def folder(tmp_path):
    write_encoder(tmp_path / "in", tokens=PIECES)
    return tmp_path / "in"


@pytest.fixture
def logged(monkeypatch):
    """What is logged, a list of texts."""
    texts = []
    for level in ("info", "warning"):
        monkeypatch.setattr(
            hf_tokenizer.logging,
            level,
            lambda text, *args: texts.append(text % args),
        )
    return texts


def write_json(folder, name="tokenizer_config.json", **entries):
    (folder / name).write_text(json.dumps(entries))


def read(folder, **changes):
    config = dict(CONFIG, vocab_size=len(PIECES), **changes)
    return hf_tokenizer.read(str(folder), config, "config.json")


def refused(folder, parts, **changes):
    with pytest.raises(UserError) as caught:
        read(folder, **changes)
    for part in parts:
        assert part in str(caught.value)
    assert str(caught.value).isprintable()


# --- vocabularies ---------------------------------------------------------------


@pytest.mark.parametrize("lower_case", [True, False])
def test_vocabulary_and_case_of_a_tokenizer_json(tmp_path, logged, lower_case):
    folder = tmp_path / "in"
    write_encoder(folder)
    write_tokenizer(folder, [*TOKENS[:-1], "A"], normalizer={"lowercase": lower_case})
    output = tmp_path / "out"
    conversion.convert(str(folder), str(output))
    written = (output / "vocab.txt").read_text()
    assert written == "".join(token + "\n" for token in [*TOKENS[:-1], "A"])
    assert any("`do_lower_case`=%s" % lower_case in text for text in logged)
    # Its digest is a part of what the folder was made from.
    record = json.loads((output / "conversion.json").read_text())
    assert "tokenizer.json" in record["inputs"]
    assert conversion.convert(str(folder), str(output)) is False


def test_tokens_that_no_line_can_hold_keep_their_place(folder):
    tokens = [*TOKENS[:4], "a", " a", "a\nb", "\u00a0", "b"]
    write_tokenizer(folder, tokens)
    assert read(folder).content == b"[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n\n\n\nb\n"


@pytest.mark.parametrize(
    "changes, part",
    [
        ({"model": {"type": "BPE", "merges": []}}, CHINESE),
        ({"model": None}, "tokenizer.json"),
        ({"normalizer": {"type": "NFC"}}, "'cafe\u0301"),
        ({"normalizer": None}, CHINESE),
        ({"normalizer": 3}, "JSON files"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "don't well-known"),
        ({"post_processor": None}, "The quick BROWN"),
        ({"model": {"unk_token": "<unk>"}}, "[UNK]"),
        ({"model": {"continuing_subword_prefix": "@@"}}, "The quick BROWN"),
        ({"model": {"max_input_chars_per_word": 20}}, "'aaaaaaa"),
        ({"model": {"vocab": {}}}, "tokenizer.json"),
        ({"model": {"vocab": {"[UNK]": 0, "a": 10**6}}}, "ids from 0 to"),
        ({"model": {"vocab": {"[UNK]": 0, "a": 0}}}, "different ids"),
        ({"model": {"vocab": {"[UNK]": 0, "a": 1}}}, "lacks [CLS], [SEP]"),
    ],
)
def test_tokenizer_json_that_is_refused(folder, changes, part):
    write_tokenizer(folder, PIECES, **changes)
    refused(folder, [part])


def test_both_vocabularies_have_to_agree(folder, logged):
    vocab = (folder / "vocab.txt").read_bytes()
    write_tokenizer(folder, PIECES)
    (folder / "vocab.txt").write_bytes(vocab)
    assert read(folder).path == str(folder / "vocab.txt") and logged == []
    write_tokenizer(folder, [*PIECES[:4], *PIECES[:3:-1]])
    (folder / "vocab.txt").write_bytes(vocab)
    refused(folder, ["vocab.txt and tokenizer.json beside it disagree"])


def test_a_vocabulary_smaller_than_the_models(folder, logged):
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n\n")
    read(folder)
    assert "5 of the %d tokens" % len(PIECES) in logged[0]


def test_no_vocabulary(folder):
    (folder / "vocab.txt").unlink()
    refused(folder, ["neither vocab.txt nor tokenizer.json", "`input_dir`"])


# --- tokenizers -----------------------------------------------------------------


@pytest.mark.parametrize("has_json", [True, False])
@pytest.mark.parametrize(
    "entries, text",
    [
        ({"strip_accents": False, "do_lower_case": True}, ACCENTS),
        ({"strip_accents": True, "do_lower_case": False}, ACCENTS),
        ({"tokenize_chinese_chars": False}, CHINESE),
        ({"added_tokens_decoder": {"11": {"content": "<e>"}}}, "'<e>'"),
        ({"additional_special_tokens": ["[URL]"]}, "'[URL]' into [CLS] [URL] [SEP]"),
        ({"extra_special_tokens": {"url": "[URL]"}}, "'[URL]'"),
        ({"extra_special_tokens": ["a"]}, "'The quick BROWN"),
    ],
)
def test_the_first_text_that_is_split_differently_is_named(
    folder, entries, text, has_json
):
    if has_json:
        write_tokenizer(folder, PIECES)
    write_json(folder, **entries)
    refused(folder, [str(folder), text])


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"strip_accents": False}, ACCENTS),
        ({"clean_text": False}, "'😀"),
        ({"handle_chinese_chars": False}, CHINESE),
    ],
)
def test_normalizers_that_differ(folder, changes, text):
    write_tokenizer(folder, PIECES, normalizer=changes)
    refused(folder, [text])


@pytest.mark.parametrize(
    "entries, parts",
    [
        ({"do_basic_tokenize": False}, []),
        ({"cls_token": "<s>"}, ["cls_token"]),
        ({"sep_token": {"content": "a"}}, ["The quick"]),
        ({"unk_token": "\x1b[2J"}, ["[UNK]"]),
        ({"do_lower_case": "yes"}, ["lowercase"]),
        ({"never_split": 3}, ["JSON files"]),
    ],
)
def test_settings_that_are_refused(folder, entries, parts):
    write_json(folder, **entries)
    refused(folder, [str(folder), *parts])


@pytest.mark.parametrize(
    "name",
    ["special_tokens_map.json", "added_tokens.json", "sentence_bert_config.json"],
)
def test_other_files_that_change_a_tokenizer(folder, name):
    write_json(folder, do_lower_case=False)
    content = {
        "special_tokens_map.json": {"additional_special_tokens": ["[URL]"]},
        "added_tokens.json": {"[URL]": 4, "[MASK]": 5},
        "sentence_bert_config.json": {"do_lower_case": True},
    }
    write_json(folder, name, **content[name])
    refused(folder, ["Café" if name.startswith("sentence") else "'[URL]'"])


@pytest.mark.parametrize(
    "entries, lower_case",
    [
        ({}, None),
        ({"strip_accents": False, "do_lower_case": False}, False),
        ({"tokenize_chinese_chars": True, "never_split": None}, None),
        ({"cls_token": {"content": "[CLS]"}, "do_basic_tokenize": True}, None),
        ({"added_tokens_decoder": {"0": {"content": "[PAD]"}}}, None),
        ({"additional_special_tokens": ["[MASK]"], "model_max_length": 9}, None),
    ],
)
def test_settings_that_are_berts(folder, logged, entries, lower_case):
    write_json(folder, **entries)
    assert read(folder).lower_case is lower_case
    assert logged == []


def test_text_that_is_lower_cased_before_its_tokenizer(folder):
    write_json(folder, "sentence_bert_config.json", do_lower_case=True)
    assert read(folder).lower_case is True


@pytest.mark.parametrize(
    "name", ["BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "Lxmert"]
)
def test_tokenizer_classes(folder, name):
    write_json(folder, tokenizer_class=name)
    if name == "Lxmert":
        refused(folder, ["tokenizer_config.json", "tokenizer_class is", name])
        write_tokenizer(folder, PIECES)
    read(folder, tokenizer_class="BertJapaneseTokenizer")


@pytest.mark.parametrize("name", ["BertJapaneseTokenizer", "RobertaTokenizer", "", 3])
def test_classes_that_are_refused(folder, name):
    parts = ["tokenizer_class is %r" % name, "config.json"]
    refused(folder, parts, tokenizer_class=name)


# --- case -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "stated, fitting, logged_case",
    [(None, None, True), (None, False, False), (False, True, False)],
)
def test_case_is_logged(folder, logged, monkeypatch, stated, fitting, logged_case):
    if stated is not None:
        write_json(folder, do_lower_case=stated)
    monkeypatch.setattr(tokenization, "detect_lower_case", lambda vocab: fitting)
    hf_tokenizer.log_case(read(folder))
    assert logged[0].endswith("`do_lower_case`=%s" % logged_case)
