"""What a program makes: on a full disk one message, and nothing that was there is lost.

A training run is in system/test_disk.py, downloads in inputs/test_download.py.
"""

import pytest
from absl import flags

import predict
import tokenization
from errors import UserError
from exchange import conversion
from inputs import feature_cache, features
from serving import saved_model
from system import disk
from tasks.classification import Classification
from tests import hf_layout, small_disk, small_packages
from weights import adapter_package, base_model, package_conversion, run_record

PAIR = small_packages.FOUR_TASKS[0]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Flags of a small base."""
    return small_packages.write_base(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture(scope="module")
def package(tmp_path_factory, base):
    """A package on it."""
    folder = tmp_path_factory.mktemp("packages") / PAIR.name
    return small_packages.write_package(folder, base, PAIR)


def contents(folder):
    """Bytes of all files below a folder, by their paths."""
    return {p: p.is_file() and p.read_bytes() for p in folder.rglob("*")}


def check(folder, size, make, message):
    """Files end at `size` bytes: `make` says so, and does its work afterwards.

    Args:
      folder: where it writes.
      size: bytes.
      make: function without arguments.
      message: pattern of the message: the file, and what is needed.
    """
    before = contents(folder)
    message = r"%s/.*%s, .* are free there: existing files" % (folder, message)
    with small_disk.files_end_at(size), pytest.raises(disk.WriteError, match=message):
        make()
    assert contents(folder) == before
    make()
    assert contents(folder) != before


def test_a_saved_model(tmp_path, base, package):
    check(
        tmp_path,
        20000,
        lambda: saved_model.export(
            [package], base_model.BaseFiles(**base), str(tmp_path)
        ),
        r"it needs 26.7 kB",
    )
    assert (tmp_path / "1" / "saved_model.pb").exists()


def test_a_converted_encoder(tmp_path):
    source = hf_layout.write_encoder(tmp_path / "in")
    target = str(tmp_path / "out")
    check(
        tmp_path,
        5000,
        lambda: conversion.convert(source, target),
        r"\.ckpt\S* cannot be written \(File too large\), it needs [0-9.]+ kB",
    )


def test_a_merged_checkpoint(tmp_path, base, package):
    target = str(tmp_path / "model.ckpt")
    check(
        tmp_path,
        5000,
        lambda: package_conversion.merge(package, base["init_checkpoint"], target),
        r"model.ckpt\S* cannot be written \(File too large\), it needs [0-9.]+ kB",
    )


def test_a_package_in_the_place_of_another(tmp_path, base, package):
    folder = tmp_path / "package"
    small_packages.write_package(folder, base, PAIR, seed=8)
    found = adapter_package.read(package)
    config = dict(found.config, settings={"note": "long " * 3000})
    found = found._replace(path=str(folder), config=config)
    diagnostics = found.diagnostics
    check(
        tmp_path,
        13000,
        lambda: adapter_package.add_scores(found, None, diagnostics),
        r"\S* cannot be written \(File too large\), it needs 27\.1 kB",
    )


def test_a_file_in_the_place_of_the_evaluations(tmp_path):
    (tmp_path / "eval").write_text("mine")
    with pytest.raises(UserError, match="eval is a file, and the summaries"):
        run_record.check(str(tmp_path), {}, None, {}, [])


def test_predictions(tmp_path, base, package):
    source, target = tmp_path / "in.tsv", tmp_path / "out.tsv"
    source.write_text("sentence\n" + "a cat\n" * 30)
    target.write_text("before")
    values = flags.FlagValues()
    predict.define_flags(values)
    given = dict(base, adapters=package, input=source, output=target)
    values(["", "--overwrite", *("--%s=%s" % item for item in given.items())])
    before = contents(tmp_path)
    with small_disk.files_end_at(100), pytest.raises(disk.WriteError) as caught:
        predict.run(values)
    for part in (str(target), " cannot be written (File too large), ", " are free "):
        assert part in str(caught.value)
    assert contents(tmp_path) == before
    assert predict.run(values) == 0
    assert len(target.read_text().splitlines()) == 31


def test_features(tmp_path, base):
    tokenizer = tokenization.FullTokenizer(base["vocab_file"])
    kind = Classification(("0",))

    def featurize(index, example, counts):
        return kind.featurize(index, example, 128, tokenizer, counts)

    examples = [features.InputExample("g", "a cat", label="0") for _ in range(50)]
    path = tmp_path / "dev.tf_record"
    check(
        tmp_path,
        1000,
        lambda: feature_cache.build_features(
            examples, featurize, kind.feature_spec(128), str(path), 1, "key"
        ),
        r"dev\S* cannot be written \(File too large\), it needs 42 kB",
    )
    # The figure is a bound, and no loose one.
    assert 42000 / 2 < path.stat().st_size < 42000
