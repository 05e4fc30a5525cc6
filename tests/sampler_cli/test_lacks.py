"""A variant that cannot run on this machine is one sentence, whichever command draws with it, and nothing is begun."""

from pathlib import Path

import pytest
import torch

from kernels import native
from sampler.__main__ import main
from sampler.lacks import lacks_told
from sampler.variants import VARIANTS, Update, Variant, native_update

GOOD = f"{Path(__file__).resolve().parents[1] / 'sampler' / 'hostile_models.py'}:good"
DRAWING = {
    "grid": ["grid", "--out", "{out}.png", "--per-label", "1"],
    "animate": ["animate", "--out", "{out}.gif", "--per-label", "1"],
    "generate": ["generate", "--out", "{out}", "--count", "4"],
}


@pytest.fixture(params=DRAWING)
def refused(request, tmp_path, capsys):
    """Draws by one of the commands with a variant of this name, and gives what it says instead."""

    def draw(name: str) -> str:
        words = [word.format(out=tmp_path / "new") for word in DRAWING[request.param]]
        assert main([*words, "--model", GOOD, "--steps", "2", "--variant", name]) == 3
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return said.splitlines()[-1]  # before it stand notes on the model, and the progress of what had begun

    return draw


def test_a_package_that_is_missing(refused, tmp_path, monkeypatch):
    def update():
        raise ModuleNotFoundError("No module named 'kernels'")

    monkeypatch.setitem(VARIANTS, "absent", Variant("absent", update=Update(update)))
    assert refused("absent").endswith("variant 'absent' cannot run here: No module named 'kernels'")
    assert not list(tmp_path.rglob("*.*"))


def test_a_kernel_that_cannot_be_built(refused, tmp_path, monkeypatch):
    def library():
        raise RuntimeError("the native kernel needs a C++ compiler: install g++")

    monkeypatch.setattr(native, "library", library)
    said = refused("native-update")
    assert said.endswith("variant 'native-update' cannot run here: the native kernel needs a C++ compiler: install g++")
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("way", [VARIANTS["native-update"], Variant("reads", update=native_update, needs="cpu")])
def test_a_kernel_that_can_be_built_draws(way):
    if reason := native.available():
        pytest.skip(reason)
    drawn = False
    with lacks_told(way):
        drawn = True
    assert drawn


def test_what_else_goes_wrong_is_not_hidden():
    with pytest.raises(RuntimeError, match="of our own making"), lacks_told(VARIANTS["reference"]):
        raise RuntimeError("of our own making")


def test_a_step_that_the_compiler_does_not_take(refused, monkeypatch):
    def runtime(step):
        try:
            raise OSError("no compiler\nand where it was sought")
        except OSError as error:
            raise torch._dynamo.exc.BackendCompilerFailed(lambda: None, error, None) from error

    monkeypatch.setitem(VARIANTS, "hard", Variant("hard", runtime=runtime))
    assert refused("hard").endswith("variant 'hard' could not be compiled here: OSError: no compiler")


def test_a_device_that_the_variant_does_not_run_on(refused, tmp_path):
    assert "variant 'fused-drawn' needs the device cuda, but --device is cpu" in refused("fused-drawn")
    assert not list(tmp_path.rglob("*.*"))
