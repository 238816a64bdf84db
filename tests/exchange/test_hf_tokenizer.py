"""The vocabulary of a folder in Hugging Face's layout, and what cuts text otherwise."""

import json

import pytest
from hf_layout import CONFIG, TOKENS, write_encoder, write_tokenizer

import tokenization
from errors import UserError
from exchange import conversion, hf_tokenizer


@pytest.fixture
def folder(tmp_path):
    write_encoder(tmp_path / "in")
    return tmp_path / "in"


@pytest.fixture
def told(monkeypatch):
    """What is logged, a list of texts."""
    texts = []
    for level in ("info", "warning"):
        monkeypatch.setattr(
            hf_tokenizer.logging,
            level,
            lambda text, *args: texts.append(text % args),
        )
    return texts


def state(folder, name="tokenizer_config.json", **entries):
    (folder / name).write_text(json.dumps(entries))


def read(folder, **changes):
    return hf_tokenizer.read(str(folder), dict(CONFIG, **changes), "config.json")


def refused(folder, parts, **changes):
    with pytest.raises(UserError) as caught:
        read(folder, **changes)
    for part in parts:
        assert part in str(caught.value)


# --- tokenizer.json -------------------------------------------------------------


@pytest.mark.parametrize("lower_case", [True, False])
def test_vocabulary_and_case_of_a_tokenizer_json(folder, told, lower_case):
    write_tokenizer(folder, normalizer={"lowercase": lower_case})
    vocabulary = read(folder)
    assert list(vocabulary.ids.items()) == [(t, i) for i, t in enumerate(TOKENS)]
    assert vocabulary.lower_case is lower_case
    assert told == []
    output = folder.parent / "out"
    conversion.convert(str(folder), str(output))
    written = (output / "vocab.txt").read_text()
    assert written == "".join(token + "\n" for token in TOKENS)
    assert any("--do_lower_case=%s" % lower_case in text for text in told)
    # Its digest is a part of what the folder was made from.
    record = json.loads((output / "conversion.json").read_text())
    assert "tokenizer.json" in record["inputs"]
    assert conversion.convert(str(folder), str(output)) is False


def test_tokens_that_no_line_can_hold_keep_their_place(folder):
    tokens = [*TOKENS[:4], "a", " a", "a\nb", "\u00a0", "\ud800", "b"]
    write_tokenizer(folder, tokens)
    vocabulary = read(folder)
    assert {t: i for t, i in vocabulary.ids.items() if t} == {
        **{t: i for i, t in enumerate(TOKENS[:5])},
        "b": 9,
    }
    # A place that no token has, since two lines of its vocab.txt were the same.
    ids = {**{t: i for i, t in enumerate(TOKENS[:4])}, "a": 6}
    write_tokenizer(folder, model={"vocab": ids})
    assert read(folder).content == b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n\n\na\n"


@pytest.mark.parametrize(
    "changes, parts",
    [
        ({"model": {"type": "BPE"}}, ['"BPE"', "WordPiece"]),
        ({"model": {"type": "Unigram", "vocab": []}}, ['"Unigram"']),
        ({"model": None}, ["type of its model is null"]),
        ({"model": 3}, ["type of its model is 3"]),
        ({"normalizer": {"type": "Sequence"}}, ['normalizer is "Sequence"']),
        ({"normalizer": None}, ["normalizer is null", "BertNormalizer"]),
        ({"pre_tokenizer": {"type": "Whitespace"}}, ['pre_tokenizer is "Whitespace"']),
        ({"pre_tokenizer": None}, ["pre_tokenizer is null"]),
        ({"model": {"unk_token": "<unk>"}}, ['model.unk_token is "<unk>"']),
        ({"model": {"continuing_subword_prefix": "@@"}}, ['prefix is "@@"']),
        ({"model": {"vocab": ["a"]}}, ['"vocab" an object']),
        ({"model": {"vocab": {}}}, ["is empty"]),
        ({"model": {"vocab": {"[UNK]": 0, "a": 10**12}}}, ["ids from 0 to 10"]),
        ({"model": {"vocab": {"[UNK]": 0, "a": -1}}}, ["ids from 0 to 10"]),
        ({"model": {"vocab": {"[UNK]": 0, "a": 0}}}, ["different ids"]),
        ({"model": {"vocab": {"[UNK]": 0, "a": "1"}}}, ["ids from 0 to 10"]),
        ({"model": {"vocab": {"[UNK]": 0, "a": 1}}}, ["lacks [CLS], [SEP]"]),
        ({"normalizer": {"lowercase": None}}, ['"lowercase" has to be']),
    ],
)
def test_tokenizer_json_that_is_refused(folder, changes, parts):
    write_tokenizer(folder, **changes)
    refused(folder, [str(folder / "tokenizer.json"), *parts])


def test_a_model_of_the_first_versions_does_not_say_its_type(folder):
    write_tokenizer(folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    del content["model"]["type"]
    path.write_text(json.dumps(content))
    assert list(read(folder).ids) == TOKENS


def test_both_vocabularies_have_to_agree(folder, told):
    write_tokenizer(folder)
    (folder / "vocab.txt").write_text("".join(token + "\n" for token in TOKENS))
    vocabulary = read(folder)
    assert vocabulary.path == str(folder / "vocab.txt") and told == []
    write_tokenizer(folder, [*TOKENS[:-2], "e", "d"])
    (folder / "vocab.txt").write_text("".join(token + "\n" for token in TOKENS))
    refused(folder, ["tokenizer.json beside it disagree", '"e"'])


def test_what_is_odd_in_a_vocabulary_is_told(folder, told):
    # No line of its own: the warning comes from where every program gets it.
    (folder / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\na\na\n")
    read(folder, vocab_size=5)
    assert len(told) == 3 and "first line 4" in told[0] and "[PAD]" in told[1]
    assert "1 rows of the word embeddings" in told[2]


def test_no_vocabulary(folder):
    (folder / "vocab.txt").unlink()
    refused(folder, ["neither vocab.txt nor tokenizer.json", "--input_dir"])


# --- settings -------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "ElectraTokenizer"],
)
def test_classes_that_cut_the_same(folder, told, name):
    state(folder, tokenizer_class=name, do_lower_case=False)
    assert read(folder, tokenizer_class="BertJapaneseTokenizer").lower_case is False
    assert told == []


@pytest.mark.parametrize(
    "name", ["BertJapaneseTokenizer", "RobertaTokenizer", "", 3, ["BertTokenizer"]]
)
def test_classes_that_are_refused(folder, name):
    refused(
        folder,
        ["config.json: tokenizer_class is " + json.dumps(name)],
        tokenizer_class=name,
    )
    state(folder, tokenizer_class=name, word_tokenizer_type="mecab")
    path = str(folder / "tokenizer_config.json")
    refused(folder, ["%s: tokenizer_class is %s" % (path, json.dumps(name))])


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "TokenizersBackend"])
def test_generic_classes_need_a_tokenizer_json(folder, name):
    state(folder, tokenizer_class=name)
    refused(folder, ["tokenizer_class is", name])
    write_tokenizer(folder)
    assert read(folder).lower_case is True


@pytest.mark.parametrize(
    "entries, part",
    [
        ({"do_basic_tokenize": False}, "do_basic_tokenize is false, and only true"),
        ({"word_tokenizer_type": "mecab"}, 'word_tokenizer_type is "mecab"'),
        ({"subword_tokenizer_type": "character"}, 'tokenizer_type is "character"'),
        ({"cls_token": "<s>"}, 'cls_token is "<s>", and only [CLS]'),
        ({"sep_token": {"content": "</s>"}}, "sep_token is"),
        ({"unk_token": "\x1b[2J"}, 'unk_token is "\\u001b[2J"'),
    ],
)
def test_settings_that_are_refused(folder, entries, part):
    state(folder, **entries)
    refused(folder, [str(folder / "tokenizer_config.json"), part])
    if next(iter(entries)).endswith("_token"):
        (folder / "tokenizer_config.json").unlink()
        state(folder, "special_tokens_map.json", **entries)
        refused(folder, [str(folder / "special_tokens_map.json"), part])


@pytest.mark.parametrize(
    "entries, part",
    [
        ({"strip_accents": False, "do_lower_case": True}, "strip_accents is false"),
        ({"strip_accents": True, "do_lower_case": False}, "strip_accents is true"),
        ({"tokenize_chinese_chars": False}, "tokenize_chinese_chars is false"),
        ({"never_split": ["x y"]}, 'never_split is ["x y"]'),
        ({"added_tokens_decoder": {"11": {"content": "<e>"}}}, "1 tokens more that"),
    ],
)
def test_settings_that_cannot_be_kept_are_told(folder, told, entries, part):
    state(folder, **entries)
    read(folder)
    assert len(told) == 1 and part in told[0]


@pytest.mark.parametrize(
    "entries",
    [
        {"strip_accents": None, "do_lower_case": True},
        {"strip_accents": False, "do_lower_case": False},
        {"tokenize_chinese_chars": True, "never_split": None},
        {"cls_token": {"content": "[CLS]"}, "do_basic_tokenize": True},
        {"added_tokens_decoder": {"0": {"content": "[PAD]"}}, "model_max_length": 9},
    ],
)
def test_settings_that_are_berts(folder, told, entries):
    state(folder, **entries)
    read(folder)
    assert told == []


@pytest.mark.parametrize(
    "changes, part",
    [
        ({"strip_accents": False}, "normalizer.strip_accents is false"),
        ({"clean_text": False}, "normalizer.clean_text is false"),
        ({"handle_chinese_chars": False}, "normalizer.handle_chinese_chars is false"),
    ],
)
def test_losses_of_a_tokenizer_json_are_told(folder, told, changes, part):
    write_tokenizer(folder, normalizer=changes)
    read(folder)
    assert len(told) == 1 and part in told[0] and "cannot be kept" in told[0]


def test_added_tokens_are_told(folder, told):
    state(folder, "added_tokens.json", **{"[E1]": 11, "[E2]": 12, "[MASK]": 4})
    read(folder)
    assert len(told) == 1 and "2 tokens more" in told[0] and '"[E1]"' in told[0]


# --- case -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "stated, fitting, parts",
    [
        (None, None, ["Nothing in", "--do_lower_case=True"]),
        (None, False, ["By the pieces", "--do_lower_case=False"]),
        (False, None, ["By the tokenizer", "--do_lower_case=False"]),
        (True, True, ["By the tokenizer", "--do_lower_case=True"]),
        (True, False, ["By the tokenizer", "look like those of --do_lower_case=False"]),
    ],
)
def test_case_is_told(folder, told, monkeypatch, stated, fitting, parts):
    if stated is not None:
        state(folder, do_lower_case=stated)
    monkeypatch.setattr(tokenization, "fitting_lower_case", lambda vocab: fitting)
    hf_tokenizer.tell_case(read(folder))
    assert len(told) == (2 if stated and fitting is False else 1)
    for part in parts:
        assert part in " ".join(told)
