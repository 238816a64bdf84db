"""`manage_adapters.py` as a user runs it."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import small_run
import tensorflow.compat.v1 as tf

import manage_adapters
import modeling
from tests import programs, small_packages
from tests.places import DATA
from weights import adapter_package, checkpoints, diagnosis, model_variables

ORIGINAL = os.path.join(DATA, "original_run")
TRAINED = os.path.join(ORIGINAL, "model.ckpt-360")
VOCAB = os.path.join(DATA, "vocab_uncased.txt")
FILES = {
    "task_name": "MRPC",
    "bert_config_file": os.path.join(ORIGINAL, "bert_config.json"),
    "vocab_file": VOCAB,
    "max_seq_length": 64,
}


def manage(*words, **given):
    """Runs `main` with words, and flags given by name."""
    given = ["--%s=%s" % (name, value) for name, value in given.items()]
    manage_adapters.main(["manage_adapters.py", *map(str, words), *given])


@pytest.fixture
def fails(capsys):
    """Runs what has to end with status 1; returns standard output and the message."""

    def start(*words, **given):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            manage(*words, **given)
        assert ended.value.code == 1
        output, errors = capsys.readouterr()
        assert errors.startswith("error: ")
        return output, errors

    return start


def test_a_package_in_a_bucket_that_cannot_be_reached(fails):
    _, message = fails("info", "nowhere://bucket/adapters")
    assert "nowhere://bucket/adapters cannot be reached" in message


def values_of(checkpoint):
    reader = tf.train.load_checkpoint(str(checkpoint))
    return {
        name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
    }


def predictions(folder, **settings):
    """What `run_classifier.py` predicts for the test set: float [examples, labels]."""
    small_run.run(do_predict=True, output_dir=str(folder), **settings)
    return np.loadtxt(str(folder / "test_results.tsv"))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The package of the original program's checkpoint."""
    folder = tmp_path_factory.mktemp("original") / "package"
    manage("export", checkpoint=TRAINED, output=folder, **FILES)
    return str(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The base model of `original`: frozen weights, and layer norms of another run."""
    config = modeling.BertConfig.from_json_file(FILES["bert_config_file"])
    frozen = model_variables.frozen_shapes(config)
    values = dict(checkpoints.Checkpoint(TRAINED).iterate_values(frozen))
    for name, value in values_of(TRAINED).items():
        if "LayerNorm" in name and "adam" not in name:
            values[name] = np.full_like(value, 0.5)
    values["cls/predictions/output_bias"] = np.zeros(7, np.float32)
    prefix = str(tmp_path_factory.mktemp("base") / "bert_model.ckpt")
    checkpoints.write(prefix, values)
    return prefix


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of this program: its folder, and its flags without --output_dir."""
    folder = tmp_path_factory.mktemp("trained")
    flags = {
        **small_run.write_model(folder / "bert", initializer_range=0.3),
        **small_run.write_mrpc(folder / "MRPC"),
        "adapter_size": 5,
        "adapter_init_scale": 0.3,
    }
    training = {"num_train_epochs": 4.0, "learning_rate": 3e-2}
    output = folder / "run"
    small_run.run(
        do_train=True, do_eval=True, output_dir=str(output), **flags, **training
    )
    return output, flags


def last_of(output):
    return tf.train.latest_checkpoint(str(output))


# --- round trips ----------------------------------------------------------------


def test_export_and_merge_give_the_checkpoint_of_the_original_back(
    original, base, tmp_path
):
    manage("merge", original, init_checkpoint=base, output=tmp_path / "model.ckpt")
    merged = values_of(tmp_path / "model.ckpt")
    expected = {n: v for n, v in values_of(TRAINED).items() if "/adam_" not in n}
    assert set(merged) == set(expected)
    for name, value in expected.items():
        assert merged[name].dtype == value.dtype
        assert merged[name].tobytes() == value.tobytes(), name
    assert merged["global_step"] == 360
    # The base model alone has other layer norms.
    norm = "bert/embeddings/LayerNorm/gamma"
    assert not np.array_equal(values_of(base)[norm], merged[norm])
    assert sorted(os.listdir(str(tmp_path))) == [
        "model.ckpt.adapters",
        "model.ckpt.data-00000-of-00001",
        "model.ckpt.index",
    ]


def test_merged_it_scores_and_predicts_as_the_original_did(original, base, tmp_path):
    manage("merge", original, init_checkpoint=base, output=tmp_path / "model.ckpt")
    flags = {**FILES, "data_dir": os.path.join(ORIGINAL, "data")}
    output = tmp_path / "merged"
    flags["init_checkpoint"] = str(tmp_path / "model.ckpt")
    found = predictions(output, do_eval=True, **flags)
    expected = np.loadtxt(os.path.join(ORIGINAL, "test_results.tsv"))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    results = []
    for folder in (ORIGINAL, str(output)):
        with open(os.path.join(folder, "eval_results.txt")) as reader:
            results.append(dict(line.split(" = ") for line in reader))
    for key in ("eval_accuracy", "eval_loss", "loss"):
        assert float(results[1][key]) == pytest.approx(float(results[0][key]), rel=1e-5)


def test_the_package_is_what_makes_the_difference(trained, tmp_path):
    output, flags = trained
    merged, package = str(tmp_path / "merged" / "model.ckpt"), str(output / "adapters")
    manage("merge", package, init_checkpoint=flags["init_checkpoint"], output=merged)
    run = predictions(output, **flags)
    ours = predictions(tmp_path / "a", **{**flags, "init_checkpoint": merged})
    np.testing.assert_array_equal(ours, run)
    np.testing.assert_array_equal(
        predictions(tmp_path / "b", adapters=package, **flags), run
    )
    assert np.abs(predictions(tmp_path / "c", **flags) - run).max() > 0.005


# --- export ---------------------------------------------------------------------


def test_what_the_package_of_the_original_says(original):
    package = adapter_package.read(original)
    config = package.config
    assert (package.task, package.labels) == ("mrpc", ["0", "1"])
    assert (package.adapter_size, package.method.activation) == (64, "gelu")
    assert (config["max_seq_length"], config["do_lower_case"]) == (64, True)
    assert config["origin"] == "checkpoint model.ckpt-360"
    assert config["settings"] is config["dev_scores"] is None


def test_a_run_of_this_program_needs_no_other_flags(trained, tmp_path):
    output, _ = trained
    folder = tmp_path / "package"
    manage("export", checkpoint=last_of(output), output=folder)
    exported = adapter_package.read(str(folder))
    assert exported.config == adapter_package.read(str(output / "adapters")).config
    assert exported.config["dev_scores"]["dev"].keys() == {"accuracy", "f1"}
    assert exported.config["settings"]["learning_rate"] == 3e-2
    assert exported.config["adapter"]["init_scale"] == 0.3
    manage("export", checkpoint=output / "model.ckpt-0", output=tmp_path / "other")
    other = adapter_package.read(str(tmp_path / "other")).config
    assert (other["global_step"], other["dev_scores"]) == (0, None)


def test_a_checkpoint_of_trained_variables_alone(trained, tmp_path, fails):
    output, flags = trained
    shutil.copytree(str(output), str(tmp_path / "run"))
    own = adapter_package.read(str(output / "adapters"))
    step = np.array(own.config["global_step"], np.int64)
    lean = str(tmp_path / "run" / "model.ckpt-lean")
    checkpoints.write(lean, {**own.weights, "global_step": step})
    folder = tmp_path / "package"
    _, message = fails("export", checkpoint=lean, output=folder)
    assert "trained variables only" in message and "--init_checkpoint" in message
    base = flags["init_checkpoint"]
    manage("export", checkpoint=lean, output=folder, init_checkpoint=base)
    assert adapter_package.read(str(folder)).config == own.config
    _, message = fails(
        "export",
        checkpoint=last_of(output),
        output=tmp_path / "x",
        init_checkpoint=base,
    )
    assert "leave out --init_checkpoint" in message


@pytest.mark.parametrize(
    ("flag", "value", "parts"),
    [
        ("task_name", "cola", ['"mrpc"', '"cola"']),
        ("do_lower_case", "false", ["is true", "is false"]),
        ("max_seq_length", 16, ["is 32", "is 16"]),
        ("bert_config_file", FILES["bert_config_file"], ['": 16', '": 32']),
        ("vocab_file", VOCAB, ["vocabulary is"]),
    ],
)
def test_flags_that_the_run_contradicts(trained, tmp_path, fails, flag, value, parts):
    output, _ = trained
    given = {flag: value, "checkpoint": last_of(output), "output": tmp_path / "x"}
    _, message = fails("export", **given)
    for part in ("--" + flag, "run.json", *parts):
        assert part in message
    assert not (tmp_path / "x").exists()


def test_a_damaged_eval_results(trained, tmp_path, fails):
    output, _ = trained
    shutil.copytree(str(output), str(tmp_path / "run"))
    (tmp_path / "run" / "eval_results.json").write_text("{")
    checkpoint = str(tmp_path / "run" / os.path.basename(last_of(output)))
    _, message = fails("export", checkpoint=checkpoint, output=tmp_path / "x")
    assert "eval_results.json is damaged" in message


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"task_name": "mnli"}, ["head of 2 outputs", "needs 3", "--task_name"]),
        ({"task_name": "nli"}, ["Task not found: nli"]),
        ({"task_name": None}, ["--task_name is needed"]),
        ({"max_seq_length": 65}, ["65", "64", "--max_seq_length"]),
        ({"checkpoint": TRAINED + ".index"}, ["no checkpoint", "without endings"]),
        ({"vocab_file": os.path.join(ORIGINAL, "none")}, ["none"]),
        ({"vocab_file": None}, ["--vocab_file is needed"]),
        ({"bert_config_file": "none"}, ["none", "cannot be read"]),
        ({"bert_config_file": None}, ["--bert_config_file is needed"]),
        ({"bert_config_file": {"hidden_size": 16}}, ["[32]", "[16]"]),
        ({"bert_config_file": {"num_hidden_layers": 3}}, ["layer_2"]),
        ({"bert_config_file": {"num_hidden_layers": 1}}, ["more than 1 layers"]),
        ({"bert_config_file": {"vocab_size": 99}}, ["30522 entries", "is 99"]),
        ({"bert_config_file": {"num_attention_heads": 5}}, ["num_attention_heads 5"]),
    ],
)
def test_what_cannot_be_exported(tmp_path, fails, changes, parts):
    given = {**FILES, "checkpoint": TRAINED, "output": tmp_path / "x", **changes}
    if isinstance(given["bert_config_file"], dict):
        with open(FILES["bert_config_file"]) as reader:
            config = {**json.load(reader), **given["bert_config_file"]}
        given["bert_config_file"] = tmp_path / "changed.json"
        given["bert_config_file"].write_text(json.dumps(config))
    given = {name: value for name, value in given.items() if value is not None}
    _, message = fails("export", **given)
    for part in parts:
        assert part in message
    assert not (tmp_path / "x").exists()


def test_a_checkpoint_without_adapters(base, tmp_path, fails):
    _, message = fails("export", checkpoint=base, output=tmp_path / "x", **FILES)
    assert "holds no adapters" in message


def test_nothing_is_exported_over_what_is_there(original, tmp_path, fails):
    (tmp_path / "mine").mkdir()
    for there in (original, str(tmp_path / "mine")):
        _, message = fails("export", checkpoint=TRAINED, output=there + "/", **FILES)
        assert "--output=%s exists" % there in message
    assert os.listdir(str(tmp_path / "mine")) == []


# --- info -----------------------------------------------------------------------


def test_info_of_one_package(trained, capsys):
    output, _ = trained
    package = adapter_package.read(str(output / "adapters"))
    config, dev = package.config, package.config["dev_scores"]["dev"]
    capsys.readouterr()
    manage("info", output / "adapters")
    lines = capsys.readouterr().out.splitlines()
    shown = {line[:12].strip(): line[12:] for line in lines}
    size = sum(f.stat().st_size for f in (output / "adapters").glob("adapter*"))
    for title, part in {
        "task": "mrpc",
        "labels": "0, 1",
        "bytes": "{:,}".format(size),
        "dev scores": "accuracy %.4f, f1 %.4f" % (dev["accuracy"], dev["f1"]),
        "health": "; ".join(package.diagnostics.warnings) or "ok",
        "parameters": "{:,}, ".format(config["parameters"]),
        "base": config["base"]["sha256"],
        "vocabulary": config["vocabulary"],
        "adapters": "size 5, gelu",
        "head": "linear on the pooler",
        "examples": "24 in train (0 12, 1 12); 10 in dev (0 5, 1 5)",
        "settings": "learning_rate=0.03",
        "trained": "12 steps",
        "model": "1 layers, hidden size 16",
        "text": "lower-cased, up to 32 word pieces",
        "written by": adapter_package.VERSION,
    }.items():
        assert part in shown[title]


def test_info_of_several_packages_is_a_table(original, trained, capsys):
    output, _ = trained
    own = adapter_package.read(str(output / "adapters"))
    capsys.readouterr()
    manage("info", original, output / "adapters")
    titles, first, second = capsys.readouterr().out.splitlines()
    # A checkpoint of the original program has no scores and no diagnostics.
    row = ["mrpc", "64", "17,154", "none", "-", original]
    cells = first.split()
    assert [*cells[:3], *cells[4:6], cells[-1]] == row
    base = own.config["base"]["sha256"][:8]
    assert titles.index("base") == second.index(base)
    assert "accuracy %.4f" % own.config["dev_scores"]["dev"]["accuracy"] in second


def test_info_for_programs(original, capsys):
    capsys.readouterr()
    manage("info", original, original, "--json")
    entries = json.loads(capsys.readouterr().out)
    assert [entry["path"] for entry in entries] == [original] * 2
    assert entries[0]["config"] == adapter_package.read(original).config
    size = sum(path.stat().st_size for path in pathlib.Path(original).glob("adapter*"))
    assert entries[0]["bytes"] == size


def test_info_shows_the_good_ones_and_names_the_bad(original, tmp_path, fails):
    output, message = fails("info", original, tmp_path, tmp_path / "none", original)
    assert output.count("17,154") == 2
    assert str(tmp_path / "adapter_config.json") in message
    assert str(tmp_path / "none" / "adapter_config.json") in message
    output, _ = fails("info", tmp_path)
    assert output == ""


def test_a_terminal_does_not_obey_a_package(original, tmp_path, capsys):
    package = adapter_package.read(original)
    path = str(tmp_path / "p")
    config = dict(package.config, origin="\x1b[2Jx\ny", settings={"a\n": "\x1b"})
    config["task"] = dict(config["task"], labels=["a", "\u202e"])
    diagnostics = diagnosis.Diagnostics(training=["\x1b[2J"])
    package = package._replace(path=path, config=config)
    adapter_package.add_scores(package, None, diagnostics)
    capsys.readouterr()
    manage("info", path)
    manage("info", path, path)
    output = capsys.readouterr().out
    assert "\x1b" not in output and "\\x1b[2Jx\\ny" in output
    assert output.isprintable() or set(output) - {"\n"} <= set(map(chr, range(32, 127)))


def test_a_license_is_in_the_card_and_stays(original, tmp_path, fails):
    path = str(tmp_path / "p")
    shutil.copytree(original, path)
    manage("card", path, license="cc-by-4.0")
    package = adapter_package.read(path)
    adapter_package.add_scores(package, {"dev": {"f1": 0.5}}, None)
    card = (tmp_path / "p" / "README.md").read_text()
    assert card.startswith('---\nlicense: "cc-by-4.0"\n') and "| dev | f1 |" in card
    assert package.config["examples"] is None and "examples    not known\n" in card
    _, message = fails("card", path, license="a\nb")
    assert "--license=a\\nb: give " in message
    _, message = fails("card", path)
    assert "card needs --license" in message


# --- verify ---------------------------------------------------------------------


def test_packages_that_fit(original, base, capsys):
    capsys.readouterr()
    manage("verify", original, original, init_checkpoint=base, vocab_file=VOCAB)
    manage("verify", original, init_checkpoint=TRAINED)
    assert capsys.readouterr().out.splitlines() == ["%s: OK" % original] * 3


def test_packages_that_do_not_fit(original, base, trained, tmp_path, fails):
    output, flags = trained
    own = str(output / "adapters")
    shutil.copytree(original, str(tmp_path / "cut"))
    (tmp_path / "cut" / "adapter.safetensors").write_bytes(b"x")
    packages = (own, tmp_path / "cut", original)
    text, message = fails("verify", *packages, init_checkpoint=base)
    lines = text.splitlines()
    assert lines[0].startswith(own + ": ") and "16]" in lines[0] and "32" in lines[0]
    assert "adapter.safetensors is damaged" in lines[1]
    assert lines[2:] == [original + ": OK"]
    assert "2 of 3 packages" in message
    vocab = flags["vocab_file"]
    text, _ = fails("verify", original, init_checkpoint=base, vocab_file=vocab)
    for path in (own, original):
        assert adapter_package.read(path).config["vocabulary"] in text


def test_one_weight_makes_another_base(original, base, tmp_path, fails):
    values = values_of(base)
    name = "bert/encoder/layer_1/intermediate/dense/bias"
    values[name][3] = np.nextafter(values[name][3], np.float32(1))
    changed = str(tmp_path / "changed.ckpt")
    checkpoints.write(changed, values)
    frozen = model_variables.frozen_shapes(adapter_package.read(original).bert_config)
    text, _ = fails("verify", original, init_checkpoint=changed)
    for checkpoint in (base, changed):
        assert (
            checkpoints.Checkpoint(checkpoint).base_fingerprint(frozen)["sha256"]
            in text
        )
    _, message = fails(
        "merge", original, init_checkpoint=changed, output=tmp_path / "model.ckpt"
    )
    assert "its base is" in message
    assert not (tmp_path / "model.ckpt.index").exists()


def test_a_base_that_is_not_there(original, fails):
    text, message = fails("verify", original, init_checkpoint="none/bert_model.ckpt")
    assert text == "" and "no checkpoint at none/bert_model.ckpt" in message


# --- merge ----------------------------------------------------------------------


def test_nothing_is_merged_over_what_is_there(original, base, tmp_path, fails):
    given = {"init_checkpoint": base, "output": tmp_path / "model.ckpt"}
    for name in ("model.ckpt.index", "model.ckpt.data-00000-of-00001"):
        (tmp_path / name).write_text("mine")
        _, message = fails("merge", original, **given)
        assert str(tmp_path / name) in message
        assert os.listdir(str(tmp_path)) == [name]
        (tmp_path / name).unlink()
    for output in (tmp_path, str(tmp_path) + "/", str(tmp_path / "new") + "/"):
        _, message = fails("merge", original, **{**given, "output": output})
        assert "is a folder" in message
    pattern = tmp_path / "lr=[3e-4]" / "model.ckpt"
    _, message = fails("merge", original, **{**given, "output": pattern})
    assert "--output=%s has the character [" % pattern in message
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize("name", ["makedirs", "rename"])
def test_a_merge_that_fails_leaves_no_checkpoint(
    original, base, tmp_path, fails, monkeypatch, name
):
    def fail(path, *rest, **named):
        raise tf.errors.ResourceExhaustedError(None, None, "%s; disk full" % path)

    monkeypatch.setattr(tf.io.gfile, name, fail)
    output = tmp_path / "model.ckpt"
    _, message = fails("merge", original, init_checkpoint=base, output=output)
    assert "disk full" in message and "model.ckpt" in message
    assert os.listdir(str(tmp_path)) == []


def test_an_activation_that_a_checkpoint_cannot_hold(tmp_path, fails):
    base = small_packages.write_base(tmp_path / "bert")
    task = small_packages.Task("pair", 3, ("a", "b"), "relu")
    folder = small_packages.write_package(tmp_path / "package", base, task)
    _, message = fails(
        "merge",
        folder,
        init_checkpoint=base["init_checkpoint"],
        output=tmp_path / "model.ckpt",
    )
    assert "relu" in message and "gelu" in message


def test_one_checkpoint_holds_one_task(original, base, fails):
    _, message = fails("merge", original, original, init_checkpoint=base, output="x")
    assert "given are 2" in message


# --- command line ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("export", ["--checkpoint", "--output", "--task_config", "--init_checkpoint"]),
        ("info", ["--json"]),
        ("verify", ["--init_checkpoint", "--vocab_file"]),
        ("merge", ["--init_checkpoint", "--output"]),
    ],
)
def test_help(capsys, fails, command, flags):
    manage("--help")
    assert "python manage_adapters.py %s" % command in capsys.readouterr().out
    manage(command, "x", "--output=y", "-h")
    shown = [line.split()[:1] for line in capsys.readouterr().out.splitlines()]
    assert all([flag] in shown for flag in flags)
    _, message = fails(command, "x", "--num_train_epochs=1")
    assert "num_train_epochs" in message and "%s --help" % command in message


def test_arguments_that_are_no_command(fails):
    text, message = fails()
    assert "manage_adapters.py merge" in text and "export, info" in message
    for argument in ("merg", "--json", "packages/mrpc"):
        _, message = fails(argument)
        assert repr(argument) in message and "list, card, verify, merge" in message


def test_packages_in_folders_are_listed(original, tmp_path, fails, capsys):
    for name in ("a", "b/adapters"):
        shutil.copytree(original, tmp_path / "runs" / name)
    (tmp_path / "runs" / "b" / "adapters" / "adapter.safetensors").write_bytes(b"")
    (tmp_path / "runs" / "other").mkdir()
    # Packages cannot be read from a folder whose name is not UTF-8.
    odd = os.path.join(os.fsencode(tmp_path / "runs"), b"\xff")
    os.mkdir(odd)
    shutil.copy(os.path.join(original, "adapter_config.json"), os.fsdecode(odd))
    manage("list", tmp_path / "runs" / "a")
    header, line = capsys.readouterr().out.splitlines()
    assert header.startswith("task ") and line.endswith("runs/a")
    for name in ("peft_default", "hub_lora"):
        shutil.copytree(os.path.join(DATA, "exchange", name), tmp_path / "runs" / name)
    os.symlink(tmp_path / "runs" / "a", tmp_path / "link")
    for path, count in ((tmp_path / "link", 2), (tmp_path, 7)):
        manage("list", path)
        assert len(capsys.readouterr().out.splitlines()) == count
    manage("list", tmp_path / "runs")
    *table, damaged, hub, peft, unreadable = capsys.readouterr().out.splitlines()
    assert table == [header, line]
    assert "b/adapters/adapter.safetensors is damaged" in damaged
    assert "is not UTF-8" in unreadable
    command = "python convert_checkpoint.py --to=package --input_dir=%s makes a "
    for text, library, name in (
        (hub, "AdapterHub", "hub_lora"),
        (peft, "peft", "peft_default"),
    ):
        folder = tmp_path / "runs" / name
        assert text.startswith("%s holds an adapter of %s: " % (folder, library))
        assert command % folder in text
    manage("list", tmp_path / "runs" / "peft_default", "--json")
    assert [*json.loads(capsys.readouterr().out)[0]] == ["path", "problem"]
    _, message = fails("list", tmp_path / "runs" / "other")
    assert "no adapter package in %s" % (tmp_path / "runs" / "other") in message
    _, message = fails("list", tmp_path / "runs", tmp_path / "none")
    assert "%s is not a folder" % (tmp_path / "none") in message


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["export", "--checkpoint=x", "--output="], "--output"),
        (["export", "x", "--checkpoint=x", "--output=y"], "'x'"),
        (["export", "--max_seq_length=long"], "max_seq_length"),
        (["verify", "--init_checkpoint=x"], "needs PACKAGE"),
        (["merge"], "PACKAGE and --init_checkpoint and --output"),
    ],
)
def test_what_a_command_needs(fails, arguments, part):
    _, message = fails(*arguments)
    assert part in message and "Traceback" not in message


def test_as_a_process_of_its_own(original, tmp_path):
    done = programs.run("manage_adapters.py", "info", original, str(tmp_path))
    assert done.returncode == 1
    assert "17,154" in done.stdout
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: %s" % tmp_path)
