"""fetch_encoder.py, with archives that a server on the loopback interface has."""

import io
import json
import os
import zipfile

import pytest
from absl import flags

import fetch_encoder
from errors import UserError
from inputs import encoder_fetch
from system import files
from tests.file_server import serve
from tests.small_run import write_model

NAME = "tiny_L-1_H-16_A-2"
FILES = (
    "bert_config.json",
    "bert_model.ckpt.index",
    "bert_model.ckpt.data-00000-of-00001",
    "vocab.txt",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with the files of a small BERT."""
    folder = tmp_path_factory.mktemp("release") / "model"
    write_model(folder)
    return folder


@pytest.fixture
def release(model, tmp_path, monkeypatch):
    """Serves an archive; returns the server and a function that runs the program."""
    monkeypatch.chdir(tmp_path)
    content = {name: (model / name).read_bytes() for name in FILES}
    with serve({}) as server:

        def run(*arguments, folder=NAME + "/", digests=False, name=NAME, **changed):
            archive = io.BytesIO()
            with zipfile.ZipFile(archive, "w") as writer:
                for each, data in {**content, **changed}.items():
                    writer.writestr(folder + each, data)
            server.files = {"/release.zip": archive.getvalue()}
            known = [files.digest(str(model / each)) for each in FILES]
            encoder = encoder_fetch.Archive(
                server.url + "/release.zip",
                dict(zip(FILES, known if digests else [""] * len(FILES))),
            )
            monkeypatch.setitem(encoder_fetch.ENCODERS, name, encoder)
            command = ["fetch_encoder.py", name, *arguments]
            return fetch_encoder.run(command, flags.FlagValues())

        yield server, run


def fetched(folder=NAME):
    return sorted(os.listdir(folder))


@pytest.mark.parametrize(
    ("inside", "digests", "checked"),
    [(NAME + "/", True, "SHA-256, config"), ("", False, "no SHA-256 is known")],
)
def test_a_release_is_fetched_once(release, model, capsys, inside, digests, checked):
    server, run = release
    more = {"bert_model.ckpt.meta": b"a graph"}
    assert run(folder=inside, digests=digests, **more) == 0
    assert fetched() == sorted(FILES)
    for name in FILES:
        with open(os.path.join(NAME, name), "rb") as file:
            assert file.read() == (model / name).read_bytes()
    assert checked in capsys.readouterr().out
    os.remove(NAME + "/vocab.txt")
    run(folder=inside, digests=digests)
    assert fetched() == sorted(FILES) and len(server.log) == 2
    run(folder=inside, digests=digests)
    assert len(server.log) == 2
    assert "already there" in capsys.readouterr().out


def test_another_folder(release):
    _, run = release
    run("--output_dir=bert")
    assert fetched("bert") == sorted(FILES) and not os.path.exists(NAME)


def test_a_folder_in_a_bucket_is_refused(release, tmp_path):
    server, fetch = release
    with pytest.raises(UserError, match=r"--output_dir=file:.*local folder"):
        fetch("--output_dir=file://%s/x" % tmp_path)
    assert not server.log
    assert not list(tmp_path.iterdir())


def test_archives_with_other_content(release, model):
    _, run = release
    data = bytearray((model / FILES[2]).read_bytes())
    data[100] ^= 1
    config = json.loads((model / FILES[0]).read_text())
    for changed, message in (
        ({FILES[2]: bytes(data)}, "cannot be read"),
        ({FILES[2]: bytes(data)[:-4]}, "hold .* bytes of"),
        ({FILES[0]: json.dumps({**config, "num_hidden_layers": 2})}, "lacks .*layer_1"),
        (
            {FILES[0]: json.dumps({**config, "num_attention_heads": 4})},
            "and 4 heads, unlike",
        ),
        ({FILES[3]: b"[PAD]\n[UNK]\n[CLS]\n[SEP]\ncat\n"}, "has 5 word pieces"),
        ({FILES[1]: b"damaged"}, "cannot be read"),
    ):
        with pytest.raises(
            UserError, match="other content than the encoder.*" + message
        ):
            run(**changed)
        assert fetched() == []
    with pytest.raises(UserError, match="SHA-256 of bert_config"):
        run(digests=True, **{FILES[0]: json.dumps(config)})


def test_files_that_are_there_are_kept(release):
    _, run = release
    os.mkdir(NAME)
    with open(NAME + "/vocab.txt", "w") as file:
        file.write("mine")
    for digests in (False, True):
        with pytest.raises(UserError, match=r"vocab\.txt differs from"):
            run(digests=digests)
        assert fetched() == ["vocab.txt"]


def test_names(capsys):
    def run(*arguments):
        return fetch_encoder.run(["fetch_encoder.py", *arguments], flags.FlagValues())

    with pytest.raises(UserError, match="did you mean uncased_L-12_H-768_A-12"):
        run("uncased_L12_H768_A12")
    with pytest.raises(UserError, match="no encoder is named; there are"):
        run("--output_dir=x")
    with pytest.raises(UserError, match="not the name of one"):
        run("uncased_L-12_H-768_A-12", "x")
    assert run("--help") == 0
    assert "wwm_cased_L-24_H-1024_A-16" in capsys.readouterr().out


def test_the_releases():
    """Their number, addresses and sizes, as google-research/bert lists them."""
    releases = {
        name: each
        for name, each in encoder_fetch.ENCODERS.items()
        if isinstance(each, encoder_fetch.Archive)
    }
    assert len(releases) == 4 + 3 + 2 + 23
    base = "https://storage.googleapis.com/bert_models/"
    for release, name in (
        ("2018_10_18", "uncased_L-12_H-768_A-12"),
        ("2019_05_30", "wwm_uncased_L-24_H-1024_A-16"),
        ("2020_02_20", "uncased_L-2_H-128_A-2"),
        ("2018_11_23", "multi_cased_L-12_H-768_A-12"),
    ):
        assert releases[name].source == "%s%s/%s.zip" % (base, release, name)
    for each in releases.values():
        assert tuple(each.files) == FILES
        assert all(len(digest) in (0, 64) for digest in each.files.values())
    vocabularies = {each.files["vocab.txt"] for each in releases.values()}
    # The demo's encoder has the vocabulary of the uncased releases.
    assert encoder_fetch.MINILM.files["vocab.txt"] in vocabularies
