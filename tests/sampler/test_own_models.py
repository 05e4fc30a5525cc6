"""Own models: found by name, looked at before time is spent, and refused in one sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sampler import own_models
from sampler.__main__ import main
from sampler.errors import UsageError
from sampler.generate import sample
from sampler.model_check import Facts, check
from sampler.models import load_model
from sampler.trajectory import ddim, spaced

FILE = Path(__file__).with_name("hostile_models.py")


def named(factory: str) -> str:
    return f"{FILE}:{factory}"


def test_a_file_and_a_package_give_the_same_model(tmp_path, monkeypatch):
    (tmp_path / "their_package").mkdir()
    (tmp_path / "their_package" / "__init__.py").write_text("")
    (tmp_path / "their_package" / "models.py").write_text(FILE.read_text())
    monkeypatch.chdir(tmp_path)
    a, b = load_model(named("good")), load_model("their_package.models:good")
    assert all(torch.equal(p, q) for p, q in zip(a.network.parameters(), b.network.parameters(), strict=True))
    assert not a.network.training


def test_a_file_finds_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_it.py").write_text(FILE.read_text())
    (tmp_path / "mine.py").write_text("from neighbour_of_it import good as make\n")
    assert load_model(f"{tmp_path / 'mine.py'}:make").classes == 10


def test_what_is_found_of_a_model():
    assert check(load_model(named("good"))) == Facts("mine", (1, 8, 8), 1000, "epsilon", 10, 485, 2, True)
    facts = check(load_model(named("unlabelled")))
    assert facts == Facts("unlabelled", (1, 8, 8), 60, "v", 0, 4160, 0, False)
    assert Facts.from_json(json.loads(json.dumps(facts.json()))) == facts


def test_a_network_of_two_arguments_is_sampled_from():
    model = load_model(named("unlabelled"))
    path = ddim(model.schedule, spaced(model.schedule, 4), prediction="v")
    assert sample(model, path, count=2, progress=False).images.shape == (2, 1, 8, 8)
    with pytest.raises(UsageError, match="needs a condition"):
        sample(model, path, count=2, guidance=2.0, progress=False)


@pytest.mark.parametrize(
    ("factory", "note"),
    [
        ("ignores_labels", "its answer is the same with a label and without: guidance costs a second call"),
        ("ignores_time", "does not depend on the timestep"),
        ("zero", "zero everywhere"),
    ],
)
def test_what_is_odd_is_told(factory, note):
    assert any(note in found for found in check(load_model(named(factory))).notes)


def test_a_sound_model_is_told_nothing():
    assert check(load_model(named("good"))).notes == check(load_model("fashion-mnist")).notes == ()


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("raises", r"it failed: RuntimeError: the disk with the weights is asleep \(at hostile_models.py:\d+\)$"),
        ("exits", r"it failed: it ended the program \(goodbye\)"),
        ("nothing", "its factory returned nothing; accepted is a sampler.Model"),
        ("a_dict", "its factory returned builtins.dict; accepted is"),
        ("a_function", "its network is a function; a torch.nn.Module is needed"),
        ("two_sides", r"shape \(8, 8\) is not \(channels, height, width\)"),
        ("unknown_prediction", "unknown prediction 'score'"),
        ("wrong_shape", r"cannot take x \[3, 3, 8, 8\].*channels"),
        ("null_label_is_a_class", "null_label = 0, but label 0 is one of its classes: give the label outside 0…9"),
        ("null_label_in_words", "null_label = 'none'; it is an integer, or None"),
        ("wrong_null_label", "values up to 11: index out of range"),
        ("other_output", r"returned \[3, 1, 7, 8\] torch.float32 for x \[3, 1, 8, 8\]"),
        ("a_tuple", "returned tuple; a denoiser returns a tensor"),
        ("not_finite", "returned NaN or infinity for noise at timestep 0"),
        ("elsewhere", "returned its answer on meta for x on cpu"),
        ("without_weights", "cannot be moved to 'cpu': .*meta"),
        ("random_inside", "answers the same question differently the second time"),
        ("changes_its_input", "changes the x that it is given"),
        ("mixes_the_batch", "answers differently for one picture when the others of its batch change"),
        ("not_there", "has nothing called 'not_there'"),
    ],
)
def test_what_no_sampler_could_use_is_refused(factory, reason, capsys):
    assert main(["check", "--model", named(factory)]) == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    with pytest.raises(UsageError, match=reason):
        raise UsageError(said.strip())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_such_package:make", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("no_such_file.py:make", "there is no file no_such_file.py"),
        ("fashion-mnits", "did you mean 'fashion-mnist'.*or your own: package.module:factory"),
    ],
)
def test_a_name_that_leads_nowhere(name, reason):
    with pytest.raises(UsageError, match=reason):
        load_model(name)


def test_a_file_that_cannot_be_imported_says_where(tmp_path):
    (tmp_path / "broken.py").write_text("x = 1\ny = x / 0\n")
    with pytest.raises(UsageError, match=r"cannot be imported: ZeroDivisionError: division by zero \(at broken.py:2\)"):
        load_model(f"{tmp_path / 'broken.py'}:make")
    (tmp_path / "unreadable.py").write_text("def make(:\n")
    with pytest.raises(UsageError, match="SyntaxError"):
        load_model(f"{tmp_path / 'unreadable.py'}:make")


def test_random_weights_are_the_same_in_every_process():
    command = [sys.executable, "-m", "sampler", "check", "--model", named("good"), "--json"]
    other = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=other)
    assert Facts.from_json(json.loads(done.stdout.splitlines()[-1])) == check(load_model(named("good")))
    torch.manual_seed(1)
    first = load_model(named("good")).network.out.weight
    torch.manual_seed(2)
    assert torch.equal(load_model(named("good")).network.out.weight, first)


def test_grid_draws_an_own_model_with_labels_and_without(tmp_path, capsys):
    for factory, more in (("good", ["--labels", "3,9"]), ("unlabelled", [])):
        out = tmp_path / f"{factory}.png"
        command = ["grid", "--model", named(factory), "--steps", "3", "--per-label", "2", "--out", str(out), *more]
        assert main(command) == 0, capsys.readouterr().err
        assert out.read_bytes().startswith(b"\x89PNG")
    assert main(["grid", "--model", named("unlabelled"), "--guidance", "2", "--out", str(tmp_path / "x.png")]) == 3
    assert "takes no labels" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "end"), [("grid", ".png"), ("animate", ".gif")])
@pytest.mark.parametrize(
    ("factory", "reason"), [("random_inside", "the second time"), ("mixes_the_batch", "its batch")]
)
def test_a_picture_is_not_begun_of_what_no_sampler_could_use(tmp_path, capsys, command, end, factory, reason):
    out = tmp_path / f"x{end}"
    assert main([command, "--model", named(factory), "--steps", "2", "--per-label", "1", "--out", str(out)]) == 3
    said = capsys.readouterr().err.splitlines()
    assert reason in said[-1]
    assert not out.exists()


@pytest.mark.parametrize(("command", "end"), [("grid", ".png"), ("animate", ".webp"), ("generate", "")])
def test_latents_without_a_decoder_are_no_picture(tmp_path, capsys, command, end):
    more = ["--count", "1"] if command == "generate" else []
    words = [command, "--model", named("latents"), "--steps", "2", "--out", str(tmp_path / f"x{end}"), *more]
    assert main(words) == 3
    said = capsys.readouterr().err.splitlines()[-1]
    assert "draws 4 channels and has no decoder, so no pictures; `generate --format npz` (or safetensors)" in said
    assert not list(tmp_path.iterdir())


def test_a_null_label_that_was_forgotten_is_no_class_to_guide_against(tmp_path, capsys):
    name = named("forgotten_null_label")
    assert not check(load_model(name)).guidable
    grid = ["grid", "--model", name, "--steps", "2", "--per-label", "1", "--out", str(tmp_path / "x.png")]
    assert main([*grid, "--guidance", "3"]) == 3
    assert "model 'mine' has no label for 'no label'; say 1" in capsys.readouterr().err
    assert main(grid) == 0
    model = load_model(name)
    path = ddim(model.schedule, spaced(model.schedule, 2))
    with pytest.raises(UsageError, match="has no label for 'no label'; without one it is 1"):
        sample(model, path, labels=[3], guidance=3.0, progress=False)


def test_shipped_names_and_own_names():
    assert not own_models.is_own("fashion-mnist")
    assert own_models.is_own("a.b:c")
    with pytest.raises(UsageError, match="loads its own"):
        load_model(named("good"), weights=Path("x"))
