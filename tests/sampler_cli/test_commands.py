"""The commands of `python -m sampler`: what they write, and that mistakes are sentences and exit status 3."""

import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image

import sampler
from sampler.__main__ import main
from sampler.asked import parse_labels
from sampler.data import CLASSES
from sampler.errors import UsageError
from sampler.variants import VARIANTS
from tests.patience import PATIENCE_S


@pytest.mark.parametrize("name", ["train", "grid", "signal", "models", "variants"])
def test_help_has_an_example(name, capsys):
    with pytest.raises(SystemExit) as done:
        main([name, "--help"])
    assert done.value.code == 0
    assert f"python -m sampler {name}" in capsys.readouterr().out.split("example:")[1]


MISTAKES = {
    "no command": ([], "COMMAND"),
    "unknown command": (["gird"], "gird"),
    "unknown option": (["grid", "--out", "x.png", "--guidence", "2"], "--guidence"),
    "not a number": (["grid", "--out", "x.png", "--steps", "many"], "many"),
    "unknown variant": (["grid", "--out", "x.png", "--variant", "batched-cgf"], "did you mean 'batched-cfg'"),
    "unknown sampler": (["grid", "--out", "x.png", "--sampler", "ddmi"], "did you mean 'ddim'"),
    "unknown spacing": (["grid", "--out", "x.png", "--spacing", "logsrn"], "did you mean 'logsnr'"),
    "no step is guided": (
        ["grid", "--out", "x.png", "--variant", "limited-guidance", "--steps", "1"],
        "and that is no step of 1",
    ),
    "unknown model": (["grid", "--out", "x.png", "--model", "fashion-mnits"], "did you mean 'fashion-mnist'"),
    "unknown device": (["grid", "--out", "x.png", "--device", "gpu"], "'cpu'|cpu, cuda"),
    "label too large": (["grid", "--out", "x.png", "--labels", "3-12"], "3-12 is outside 0-9"),
    "label far too large": (["grid", "--out", "x.png", "--labels", "0-99999999999"], "0-99999999999 is outside 0-9"),
    "label range backwards": (["grid", "--out", "x.png", "--labels", "5-2"], "2-5"),
    "unknown class": (["grid", "--out", "x.png", "--labels", "sneakers"], "did you mean 'sneaker'"),
    "no label": (["grid", "--out", "x.png", "--labels", ""], "class"),
    "no samples": (["grid", "--out", "x.png", "--per-label", "0"], "--per-label 0"),
    "infinite guidance": (["grid", "--out", "x.png", "--guidance", "inf"], "inf"),
    "not a picture": (["grid", "--out", "grid.jpeg"], ".png"),
    "unwritable": (["grid", "--out", "{file}/grid.png"], "cannot make the folder"),
    "out is a folder": (["signal", "--out", "{folder}.png"], "is a folder"),
    "no weights": (["grid", "--out", "{tmp}/x.png", "--weights", "{tmp}/none"], "no weights at"),
    "not weights": (["grid", "--out", "{tmp}/x.png", "--weights", "{file}"], "not a readable safetensors"),
    "too many steps": (
        ["grid", "--out", "{tmp}/x.png", "--weights", "{weights}", "--steps", "1001"],
        "1…1000",
    ),
    "variant for another device": (["grid", "--out", "{tmp}/x.png", "--variant", "cuda-graph"], "needs"),
    "more threads than CPUs": (["grid", "--threads", "100000", "--out", "{tmp}/x.png"], "the CPUs that may be used"),
    "a picture for a wall": (["grid", "--enlarge", "100000", "--out", "{tmp}/x.png"], "--enlarge 100000 is more than"),
    "no data": (["train", "--data", "{tmp}/none", "--out", "{tmp}/out"], "no data set at"),
    "damaged data": (["train", "--data", "{damaged}", "--out", "{tmp}/out"], "damaged"),
    "training folder is a file": (["train", "--data", "{data}", "--out", "{file}"], "cannot make the folder"),
    "batch above the data": (["train", "--data", "{data}", "--out", "{tmp}/out"], "the 48 images"),
    "colour model": (["train", "--model", "cifar10-size", "--data", "{data}", "--out", "{tmp}/out"], "grey"),
    "seed": (["train", "--seed", "-1", "--data", "{data}", "--out", "{tmp}/out"], "--seed -1"),
}


@pytest.mark.parametrize(("arguments", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence(arguments, says, tmp_path, tiny_data, random_weights, capsys):
    (tmp_path / "file").write_text("not what it should be")
    (tmp_path / "folder.png").mkdir()
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for source in tiny_data.iterdir():
        (damaged / source.name).write_bytes(source.read_bytes()[:-40])
    names = {
        "tmp": tmp_path, "file": tmp_path / "file", "folder": tmp_path / "folder", "data": tiny_data,
        "weights": random_weights, "damaged": damaged,
    }  # fmt: skip
    assert main([argument.format(**names) for argument in arguments]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert any(part in err for part in says.split("|"))


def test_a_mistake_leaves_a_process_without_a_traceback(command, tmp_path):
    process = command("grid", "--variant", "refrence", "--out", tmp_path / "x.png")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3
    assert out == ""
    assert "did you mean 'reference'" in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "labels"),
    [("0-9", list(range(10))), ("0,3,5", [0, 3, 5]), ("7", [7]), ("5,0-2", [5, 0, 1, 2]),
     ("T-shirt, ankle boot,BAG", [0, 9, 8]), ("ankle-boot", [9])],
)  # fmt: skip
def test_labels_are_numbers_ranges_or_names(text, labels):
    assert parse_labels(text, 10, CLASSES) == labels


def test_names_need_a_model_that_has_names():
    with pytest.raises(UsageError, match="not a number"):
        parse_labels("bag", 10)


def test_grid_draws_a_row_a_label_and_repeats_itself(tmp_path, random_weights, capsys):
    out = tmp_path / "new" / "grid.png"
    arguments = [
        "grid",
        "--labels",
        "2,bag",
        "--per-label",
        "3",
        "--steps",
        "2",
        "--weights",
        str(random_weights),
    ]
    assert main([*arguments, "--out", str(out), "--enlarge", "2"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    first = Image.open(out)
    assert first.height == 2 * (2 * 30 + 2)
    assert first.width > 2 * (3 * 30 + 2)  # names stand on the left
    assert main([*arguments, "--out", str(tmp_path / "again.png"), "--enlarge", "2"]) == 0
    assert out.read_bytes() == (tmp_path / "again.png").read_bytes()
    assert main([*arguments, "--out", str(out), "--seed", "1"]) == 0
    assert Image.open(out).tobytes() != first.tobytes()
    assert not [p for p in out.parent.iterdir() if p != out]


def test_grid_of_a_colour_model_says_that_its_weights_are_random(tmp_path, monkeypatch, capsys):
    from sampler import models, unet

    small = unet.UNetConfig(image_channels=3, image_size=16, widths=(8, 16), classes=4)
    monkeypatch.setitem(models.RECIPES, "small", models.Recipe(small, None, "for this test"))
    out = tmp_path / "grid.png"
    assert main(["grid", "--model", "small", "--labels", "0-3", "--steps", "2", "--out", str(out)]) == 0
    assert "random" in capsys.readouterr().err
    assert Image.open(out).mode == "RGB"


def test_signal_writes_a_picture(tmp_path, capsys):
    assert main(["signal", "--out", str(tmp_path / "signal.png"), "--seed", "7"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'signal.png'}\n"
    assert "DDPM arrived at a" in err
    assert Image.open(tmp_path / "signal.png").width > 1000


def test_lists(capsys):
    assert main(["models"]) == 0
    listed = capsys.readouterr().out
    assert "451,652 parameters" in listed
    assert "random weights" in listed
    assert main(["variants"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(VARIANTS)
    assert "guide: batched_cfg" in lines[1]


def test_the_package_exports_what_it_names():
    assert all(hasattr(sampler, name) for name in sampler.__all__)
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["version"] == sampler.__version__


def test_weights_that_break_the_numbers_are_reported(tmp_path, random_weights, capsys):
    from safetensors.torch import load_file, save_file

    state = load_file(random_weights)
    state["head.bias"].fill_(torch.nan)
    save_file(state, tmp_path / "nan.safetensors")
    arguments = [
        "grid",
        "--out",
        str(tmp_path / "x.png"),
        "--steps",
        "2",
        "--labels",
        "0",
        "--per-label",
        "1",
    ]
    assert main([*arguments, "--weights", str(tmp_path / "nan.safetensors")]) == 3
    assert "returned NaN or infinity for noise at timestep 999" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()
