"""Tests of tokenization: against the original's figures and a plain restatement."""

import json
import os
import random
import unicodedata

import pytest

import tokenization
from errors import UserError
from tests.places import DATA

VOCAB_FILE = os.path.join(DATA, "vocab_uncased.txt")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]

with open(os.path.join(DATA, "golden_tokenization.json"), encoding="utf-8") as _file:
    GOLDEN = json.load(_file)


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def tokenizer(request):
    return tokenization.FullTokenizer(VOCAB_FILE, do_lower_case=request.param)


def write_vocab(folder, content):
    (folder / "vocab.txt").write_bytes(content)
    return str(folder / "vocab.txt")


def plain_words(text, do_lower_case):
    """BERT's words of a text, one character and one rule at a time."""
    spaced = ""
    for char in text:
        category = unicodedata.category(char)
        point = ord(char)
        if char in ("\t", "\n", "\r") or category == "Zs":
            spaced += " "
        elif point in (0, 0xFFFD) or category in ("Cc", "Cf"):
            continue
        elif (
            0x4E00 <= point <= 0x9FFF
            or 0x3400 <= point <= 0x4DBF
            or 0x20000 <= point <= 0x2A6DF
            or 0x2A700 <= point <= 0x2B73F
            or 0x2B740 <= point <= 0x2B81F
            or 0x2B820 <= point <= 0x2CEAF
            or 0xF900 <= point <= 0xFAFF
            or 0x2F800 <= point <= 0x2FA1F
        ):
            spaced += " " + char + " "
        else:
            spaced += char
    words = []
    for word in spaced.strip().split():
        if do_lower_case:
            decomposed = unicodedata.normalize("NFD", word.lower())
            word = "".join(c for c in decomposed if unicodedata.category(c) != "Mn")
        part = ""
        for char in word:
            point = ord(char)
            if (
                33 <= point <= 47
                or 58 <= point <= 64
                or 91 <= point <= 96
                or 123 <= point <= 126
                or unicodedata.category(char)[0] == "P"
            ):
                words += [part, char]
                part = ""
            else:
                part += char
        words.append(part)
    return " ".join(words).split()


def plain_pieces(words, vocab):
    """The longest pieces of each word, every candidate tried."""
    pieces = []
    for word in words:
        found = []
        rest = word if len(word) <= 200 else None
        while rest:
            mark = "##" if found else ""
            lengths = range(len(rest), 0, -1)
            length = next((n for n in lengths if mark + rest[:n] in vocab), None)
            if length is None:
                rest = None
            else:
                found.append(mark + rest[:length])
                rest = rest[length:]
        pieces += ["[UNK]"] if rest is None else found
    return pieces


def random_texts(count):
    """Texts of the characters where the rules differ, ASCII ones among them."""
    source = random.Random(7)
    ascii_chars = [chr(point) for point in range(128)]
    letters = list("aeinorstAEIS") * 3
    delicate = list(
        "\u00a0\u1680\u2003\u2028\u2029\u3000\u0085\u200b\u200d\ufeff\ufffd\u00ad"
        "\u0301\u0327\u0130\u0131\u03a3\u03c2\u00df\ufb01\u037e\u1fef\u00c5\u212b"
        "\u4e00\u9fff\u3400\uf900\uac00\u3042\u30ab\u2014\u2019\u00bf\u20ac\u00d7"
        "\U0001f600\U00020000\U0002f800\U000e0001\ue000\u0378\ud800"
    )
    for index in range(count):
        chars = ascii_chars + letters
        if index % 3:
            chars = letters + delicate
        if index % 3 == 2:
            chars = chars + [chr(source.randrange(0x30000)) for _ in range(40)]
        yield "".join(source.choice(chars) for _ in range(source.randrange(60)))


def test_golden_tokens_and_ids(tokenizer):
    kind = "uncased" if tokenizer.basic_tokenizer.do_lower_case else "cased"
    assert len(GOLDEN) == 236
    for case in GOLDEN:
        tokens = tokenizer.tokenize(case["text"])
        assert tokens == case[kind + "_tokens"], ascii(case["text"])
        assert tokenizer.convert_tokens_to_ids(tokens) == case[kind + "_ids"]
        assert tokenizer.convert_ids_to_tokens(case[kind + "_ids"]) == tokens


def test_equals_the_plain_rules_on_random_texts(tokenizer):
    lower = tokenizer.basic_tokenizer.do_lower_case
    pieces_seen = set()
    for text in random_texts(3000):
        words = plain_words(text, lower)
        assert tokenizer.basic_tokenizer.tokenize(text) == words, ascii(text)
        pieces = tokenizer.tokenize(text)
        assert pieces == plain_pieces(words, tokenizer.vocab), ascii(text)
        pieces_seen.update(pieces)
    assert len(pieces_seen) > 500


def test_cache_is_bounded_and_changes_nothing(monkeypatch):
    monkeypatch.setattr(tokenization, "_MAX_CACHED_WORDS", 5)
    tokenizer = tokenization.FullTokenizer(VOCAB_FILE)
    for _ in range(2):
        for case in GOLDEN[:100]:
            assert tokenizer.tokenize(case["text"]) == case["uncased_tokens"]
            assert len(tokenizer._cache) <= 5
    tokenizer = tokenization.FullTokenizer(VOCAB_FILE)
    tokenizer.tokenize("kept " + "long" * 50)
    assert list(tokenizer._cache) == ["kept"]


def test_returned_list_can_be_changed():
    tokenizer = tokenization.FullTokenizer(VOCAB_FILE)
    tokenizer.tokenize("unaffable").clear()
    assert tokenizer.tokenize("unaffable") == ["una", "##ffa", "##ble"]


@pytest.mark.parametrize(
    "text, uncased, cased",
    [
        ("a\0b\ufffdc\x07d\u200be", ["abcde"], ["abcde"]),
        ("a\tb\nc\rd\u00a0e\u3000f", list("abcdef"), list("abcdef")),
        ("a\u2028b", ["a", "b"], ["a", "b"]),
        ("ab\u4e2d\u6587cd", ["ab", "\u4e2d", "\u6587", "cd"], None),
        ("\u3042\u3044 \u30a2\u30a4", ["\u3042\u3044", "\u30a2\u30a4"], None),
        ("H\u00c9llo \u0301x", ["hello", "x"], ["H\u00c9llo", "\u0301x"]),
        ("\u00df \u0130", ["\u00df", "i"], ["\u00df", "\u0130"]),
        ("\u039f\u03a3 \u03a3", ["\u03bf\u03c2", "\u03c3"], ["\u039f\u03a3", "\u03a3"]),
        ("n't!?a^b$5`", ["n", *"'t!?a^b$5`"], None),
        ("x\u2014y \u00bfz\u3002", ["x", "\u2014", "y", "\u00bf", "z", "\u3002"], None),
        ("5\u20ac \u00d7", ["5\u20ac", "\u00d7"], None),
        ("a\u037eb", ["a", ";", "b"], ["a", "\u037e", "b"]),
        ("\ue000 \u0378", ["\ue000", "\u0378"], None),
        (" \n ", [], []),
        (b"caf\xc3\xa9 \xffx", ["cafe", "x"], ["caf\u00e9", "x"]),
    ],
)
def test_basic_tokenizer(text, uncased, cased):
    assert tokenization.BasicTokenizer().tokenize(text) == uncased
    tokenizer = tokenization.BasicTokenizer(do_lower_case=False)
    assert tokenizer.tokenize(text) == (uncased if cased is None else cased)


def test_wordpiece_takes_the_longest_piece_or_gives_up():
    vocab = {"un", "##aff", "##able", "##a", "una", "want", "##ed", "[UNK]"}
    pieces = tokenization.WordpieceTokenizer(vocab).tokenize
    assert pieces("wanted") == ["want", "##ed"]
    # Greedy: "una" wins although "un" would have spelled the word.
    assert pieces("unaffable want") == ["[UNK]", "want"]
    assert pieces("aff wantedx ##able") == ["[UNK]", "[UNK]", "##able"]
    vocab.remove("una")
    assert pieces("unaffable") == ["un", "##aff", "##able"]


def test_wordpiece_limits_the_length_of_a_word():
    pieces = tokenization.WordpieceTokenizer({"a": 0, "##a": 1}).tokenize
    assert pieces("a" * 200) == ["a"] + ["##a"] * 199
    assert pieces("a" * 201) == ["[UNK]"]
    short = tokenization.WordpieceTokenizer({"a", "##a"}, "<?>", 2).tokenize
    assert short("aa aaa") == ["a", "##a", "<?>"]


def test_conversions_between_texts_and_ids():
    assert tokenization.convert_to_unicode("\u00e9") == "\u00e9"
    assert tokenization.convert_to_unicode(b"\xc3\xa9\xff") == "\u00e9"
    assert tokenization.printable_text(b"\xc3\xa9") == "\u00e9"
    with pytest.raises(ValueError, match="int"):
        tokenization.convert_to_unicode(3)
    assert tokenization.whitespace_tokenize(" a \n b ") == ["a", "b"]
    assert tokenization.convert_tokens_to_ids({"a": 4, "b": 2}, ["b", "a"]) == [2, 4]
    assert tokenization.convert_ids_to_tokens({4: "a", 2: "b"}, [4, 2]) == ["a", "b"]


@pytest.mark.parametrize(
    "content, ids",
    [
        (b"a\r\nb\r\n", {"a": 0, "b": 1}),
        (b"\xef\xbb\xbf[PAD]\n b", {"[PAD]": 0, "b": 1}),
        (b"a\rb\nc\n", {"a\rb": 0, "c": 1}),
        ("a\n\u00bd\u2028x\nb\n".encode(), {"a": 0, "\u00bd\u2028x": 1, "b": 2}),
        (b"a\n\nb\n\n \r\n\n", {"a": 0, "": 1, "b": 2}),
        # The last line of a token gives its id.
        (b"a\nb \nc\nb\n", {"a": 0, "b": 3, "c": 2}),
        ("a\n\u00a0\nb\n\u2028\n".encode(), {"a": 0, "b": 2, "": 3}),
    ],
)
def test_load_vocab(tmp_path, content, ids):
    assert tokenization.load_vocab(write_vocab(tmp_path, content)) == ids


def test_a_token_twice_is_split_as_usual(tmp_path):
    tokens = [*SPECIAL, "un", "##do", "un", "[CLS]"]
    path = write_vocab(tmp_path, "\n".join(tokens).encode())
    tokenizer = tokenization.FullTokenizer(path)
    pieces = tokenizer.tokenize("Undo")
    assert pieces == ["un", "##do"]
    assert tokenizer.convert_tokens_to_ids([*pieces, "[CLS]"]) == [6, 5, 7]
    assert tokenizer.convert_ids_to_tokens([6, 5, 7]) == ["un", "##do", "[CLS]"]


@pytest.mark.parametrize(
    "content, parts",
    [
        (b" \n\n", ["is empty"]),
        (b"a\nb\n\xff\xfe\n", ["line 3", "not UTF-8"]),
        (b"a\n[PAD]\n", ["[CLS], [SEP], [UNK]"]),
        (b"[CLS]\n[UNK]\n", ["lacks [SEP],"]),
    ],
)
def test_unusable_vocabulary(tmp_path, content, parts):
    path = write_vocab(tmp_path, content)
    with pytest.raises(UserError) as caught:
        tokenization.FullTokenizer(path)
    for part in [path, *parts]:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("lower", "name"),
    [(True, "chinese_L-12_H-768_A-12"), (False, "multi_cased_L-12_H-768_A-12")],
)
def test_case_of_a_known_release(lower, name):
    for folder in ("", "/models/", "gs://bucket/bert/"):
        path = "%s%s/bert_model.ckpt" % (folder, name)
        tokenization.validate_case_matches_checkpoint(lower, path)
        with pytest.raises(UserError) as caught:
            tokenization.validate_case_matches_checkpoint(not lower, path)
        for part in (path, "`do_lower_case`=True", "`do_lower_case`=False"):
            assert part in str(caught.value)


def test_case_of_another_checkpoint_is_not_judged():
    for path in (
        None,
        "bert_model.ckpt",
        "/models/cased_L-12_H-768_A-12/model.ckpt-7",
        "/models/cased_L-12_H-768_A-12.old/bert_model.ckpt",
    ):
        for lower in (True, False):
            tokenization.validate_case_matches_checkpoint(lower, path)


def pieces(capital=0, small=0, chinese=0):
    """A vocabulary of so many pieces of each kind."""
    tokens = [*SPECIAL, "[MASK]", "<S>", "", "##", "1", "##!", "\u00bd"]
    tokens += ["Wort%d" % i for i in range(capital // 2)]
    tokens += ["##Ä%d" % i for i in range(capital - capital // 2)]
    tokens += ["wort%d" % i for i in range(small)]
    tokens += ["\u4e00%d" % i for i in range(chinese)]
    return {token: index for index, token in enumerate(tokens)}


@pytest.mark.parametrize(
    "counts, fitting",
    [
        ({"small": 2000, "capital": 4}, True),
        ({"small": 2000, "capital": 40}, None),
        ({"small": 2000, "capital": 200}, False),
        # Little of a script with case: nobody writes such text, or it is mixed.
        ({"small": 2000, "chinese": 4000}, None),
        ({"small": 900, "capital": 300, "chinese": 30000}, False),
        ({"chinese": 30000}, None),
        ({"small": 500, "capital": 400}, None),
    ],
)
def test_case_that_a_vocabulary_was_made_for(counts, fitting):
    assert tokenization.detect_lower_case(pieces(**counts)) is fitting


def test_case_of_berts_own_vocabulary():
    vocab = tokenization.load_vocab(VOCAB_FILE)
    assert tokenization.detect_lower_case(vocab) is True
    # A cased vocabulary: words with a capital.
    words = [token.capitalize() if i % 3 else token for i, token in enumerate(vocab)]
    cased = {token: index for index, token in enumerate(words)}
    assert tokenization.detect_lower_case(cased) is False


@pytest.mark.parametrize(
    "counts, lower, parts",
    [
        ({"small": 2000}, False, ["2000 pieces", "0 have"]),
        ({"small": 1500, "capital": 500}, True, ["2000 pieces", "500 have"]),
    ],
)
def test_case_that_does_not_fit(monkeypatch, counts, lower, parts):
    warnings = []
    monkeypatch.setattr(
        tokenization.logging, "warning", lambda text, *a: warnings.append(text % a)
    )
    vocab = pieces(**counts)
    with pytest.raises(UserError) as caught:
        tokenization.check_case(lower, False, vocab, "v.txt")
    for part in [*parts, "v.txt", "case`=True", "case`=False"]:
        assert part in str(caught.value)
    assert not warnings
    tokenization.check_case(lower, True, vocab, "v.txt")
    assert len(warnings) == 1 and "`do_lower_case`=%s" % lower in warnings[0]
    for is_given in (True, False):
        tokenization.check_case(not lower, is_given, vocab, "v.txt")
        tokenization.check_case(lower, is_given, pieces(small=10), "v.txt")
    assert len(warnings) == 1
