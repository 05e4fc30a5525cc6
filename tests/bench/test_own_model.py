"""An own model in the harness: looked at in another process, fitted into the workload, its table told from others."""

import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import own_model, store
from bench.contenders import CONTENDERS
from bench.fitting import unfit
from bench.gate.worker_script import FactoryRows
from bench.measurement import Measurement
from bench.planted import planted
from bench.workload import Workload, from_json, workload
from sampler import cpu
from sampler.errors import UsageError
from sampler.model_check import Facts
from sampler.models import load_model

ROOT = Path(__file__).resolve().parents[2]
FACTORIES = ROOT / "tests" / "sampler" / "hostile_models.py"
LABELLED = Facts("mine", (1, 8, 8), 1000, "epsilon", 10, 485, 2, True)
UNLABELLED = Facts("bare", (1, 8, 8), 60, "v", 0, 4160, 0, False)


@pytest.fixture
def known(monkeypatch):
    """Own models by name, without a process that looks at them."""
    facts = {"a.b:labelled": LABELLED, "a.b:unlabelled": UNLABELLED, "a.b:unguided": replace(LABELLED, guidable=False)}
    monkeypatch.setattr(own_model, "facts", lambda model, device: facts[model])


def test_a_workload_fits_its_model(known):
    labelled, bare = workload("full", model="a.b:labelled"), workload("full", model="a.b:unlabelled")
    assert (labelled.steps, labelled.guidance) == (1000, 3.0)
    assert (bare.steps, bare.guidance) == (60, 1.0)
    assert workload("smoke", model="a.b:unlabelled").steps == 20
    assert workload("smoke", model="a.b:unlabelled", steps=60).steps == 60
    assert from_json(bare.json()) == bare


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"model": "a.b:unlabelled", "guidance": 2.0}, "takes no labels"),
        ({"model": "a.b:unguided", "guidance": 2.0}, "has no label for 'no label'"),
        ({"model": "a.b:unlabelled", "steps": 61}, "steps = 61 is outside 1…60"),
        ({"model": "fashion-mnits"}, "did you mean 'fashion-mnist'.*or your own"),
    ],
)
def test_what_does_not_fit_is_refused(known, given, reason):
    with pytest.raises(UsageError, match=reason):
        workload(**given)


def test_rows_that_say_nothing_about_a_model_say_why(known):
    bare = workload(model="a.b:unlabelled")
    why = {name: unfit(contender, bare) for name, contender in CONTENDERS.items()}
    assert why["batched-cfg"] == (
        "the model has no labels to guide by, and without guidance this row is the same as 'reference'"
    )
    assert why["limited-guidance"].endswith("the same as 'reference'")
    assert why["all-equal-steps"].endswith("the same as 'all-lossless'")
    assert why["all-half-limited"].endswith("the same as 'all-half'")
    assert "predicts v" in why["textbook"]
    assert "predicts v" in why["textbook-strided"]
    assert "no convolution" in why["channels-last"]
    sound = ("reference", "compiled", "all-lossless", "all-together", "ddim", "strided", "native-update", "fused-drawn")
    assert [why[name] for name in sound] == [""] * len(sound)
    assert not any(unfit(c, workload(model="a.b:labelled")) for c in CONTENDERS.values())
    assert not any(unfit(c, Workload()) for c in CONTENDERS.values())
    assert unfit(CONTENDERS["batched-cfg"], Workload(guidance=1)).startswith("guidance is 1, and without guidance")


def test_the_process_that_looks_at_a_model_may_die(tmp_path, capfd):
    (tmp_path / "dies.py").write_text("import os\n\ndef make():\n    print('going', flush=True)\n    os._exit(9)\n")
    with pytest.raises(UsageError, match="the process that looked at it ended with exit status 9"):
        own_model.facts(f"{tmp_path / 'dies.py'}:make", "cpu")
    with pytest.raises(UsageError, match=r"^--model .*raises: it failed: RuntimeError: the disk"):
        own_model.facts(f"{FACTORIES}:raises", "cpu")
    found = own_model.facts(f"{FACTORIES}:ignores_labels", "cpu")
    assert "the same with a label and without" in capfd.readouterr().err
    assert found.classes == 10


def test_the_gate_calls_the_same_record():
    task = {"model": "tests.sampler.hostile_models:good", "device": "cpu", "shape": None, "batch": 4}
    rows = FactoryRows(task, ROOT)
    rows.build("model")
    call, inputs = rows.prepare("model", 3, 1)
    (out,) = call()
    assert out.shape == (4, 1, 8, 8)
    assert [value.tolist() for value in inputs[1:]] == [[0, 333, 666, 999], [0, 1, 2, 3]]


ROWS = """
from bench.contenders import Contender
from sampler.variants import VARIANTS
CONTENDERS = [Contender("mine", "what I changed", VARIANTS["batched-cfg"], lossless=False)]
"""


def test_contenders_of_ones_own_are_read_from_a_file(tmp_path):
    (tmp_path / "rows.py").write_text(ROWS)
    (found,) = planted(str(tmp_path / "rows.py"))
    assert (found.name, found.lossless) == ("mine", False)
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UsageError, match="holds no list CONTENDERS"):
        planted(str(tmp_path / "empty.py"))
    with pytest.raises(UsageError, match=r"^--contenders .*no.py: there is no file"):
        planted(str(tmp_path / "no.py"))


def test_a_row_keeps_what_its_contender_says_of_itself():
    said = {"event": "contender", "row": "mine", "lossless": False, "changes": "what I changed"}
    row = Measurement(Workload(), {}, ["reference", "mine"], "", "", [said]).row("mine")
    assert (row.lossless, row.changes) == (False, "what I changed")
    assert Measurement(Workload(), {}, ["mine"], "", "").row("mine").lossless


def readme_model() -> str:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (block,) = [b for b in blocks if "def make" in b]
    return block


def run_bench(folder: Path, model: str) -> subprocess.CompletedProcess:
    """The command of the README from somebody's own folder, the results kept out of the checkout's."""
    code = (
        "import sys, pytest; from pathlib import Path; from bench import store; "
        f"store.RESULTS = Path({str(folder / 'results')!r}); "
        f"sys.exit(pytest.main([{str(ROOT / 'bench')!r}, '--benchmark-only', '-q', '-p', 'no:cacheprovider', "
        f"'--preset', 'smoke', '--budget', '10', '--model', {model!r}]))"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-P", "-c", code], cwd=folder, env=environ, capture_output=True, text=True)


def test_a_model_that_cannot_be_used_ends_pytest_with_a_sentence(tmp_path):
    done = run_bench(tmp_path, f"{FACTORIES}:raises")
    assert done.returncode == 4
    assert "ERROR: --model" in done.stderr
    assert "the disk with the weights is asleep" in done.stderr
    assert "Traceback" not in done.stderr


RUN_ON_A_CPU = [
    "textbook", "reference", "batched-cfg", "channels-last", "compiled-update", "native-update", "compiled",
    "all-lossless", "autocast-bf16", "cast-bf16", "all-half", "limited-guidance", "all-equal-steps",
    "all-half-limited", "textbook-strided", "strided", "ddim", "all-few-steps", "all-together",
]  # fmt: skip
HALF = [] if cpu.has_bf16() else ["all-half", "all-half-limited"]  # slower than float32 there, so left out
UNGUIDED_HERE = ["all-few-steps", "all-together"]  # a twentieth of 20 steps: none at the levels they guide at
SAME_UNGUIDED = ["batched-cfg", "limited-guidance", "all-equal-steps", "all-half-limited"]


def full_table(done: subprocess.CompletedProcess, folder: Path, left_out: list[str], heading: str,
               broken: tuple[str, ...] = ()) -> None:  # fmt: skip
    """Of every row figures in the stored result and on the terminal, or a sentence why not.

    Exit code 0, unless rows are known to be broken: those are red.
    """
    said = done.stdout + done.stderr
    assert done.returncode == (1 if broken else 0), said[-5000:]  # every row that is not left out ran
    assert "Traceback" not in said
    assert heading in done.stdout
    result = store.load(store.newest(folder / "results" / "scratch"))
    assert sorted(result.rows) == sorted(CONTENDERS)
    assert not result.interrupted
    rows = [result.row(name) for name in result.rows]
    measured = [row for row in rows if row.status == "ok"]
    assert {row.name for row in measured} == set(RUN_ON_A_CPU) - {*left_out, *broken}
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    for row in rows:
        if row in measured:
            assert 0 < row.step_ms < math.inf
            assert row.name == "reference" or (row.pairs and 0 < row.speedup.value < math.inf)
            assert row.first_call_s
            assert result.of("evidence", row.name)
            assert CONTENDERS[row.name].textbook or row.divergence  # against a float64 run, on the same noise
        elif row.name in broken:
            assert (row.status, row.reason) == ("red", "its pictures hold NaN or infinity")
        else:
            assert row.status == "grey"
            why = "needs CUDA|.*without guidance this row is the same as|.*bfloat16|.* is no step of 1;"
            assert re.match(why, row.reason)
            assert row.reason in lines[row.name]


@pytest.mark.slow
def test_the_model_in_the_readme_goes_through_to_a_full_table(tmp_path):
    (tmp_path / "my_model.py").write_text(readme_model())
    assert len(readme_model().strip().splitlines()) <= 15
    done = run_bench(tmp_path, "my_model.py:make")
    full_table(done, tmp_path, HALF + UNGUIDED_HERE, "my_model.py:make, batch 4, 20 steps, guidance 3")


@pytest.mark.long
def test_a_model_without_labels_goes_through_to_a_table(tmp_path):
    done = run_bench(tmp_path, f"{FACTORIES}:unlabelled")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "without guidance this row is the same as 'reference'" in done.stdout.replace("\n", " ")


@pytest.mark.long
def test_a_unet_saved_by_diffusers_goes_through_to_a_full_table(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    diffusers.UNet2DModel(
        sample_size=16, in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4,
        layers_per_block=1, down_block_types=("DownBlock2D",), attention_head_dim=8,  # that is of its middle
        up_block_types=("UpBlock2D",),
    ).save_pretrained(tmp_path / "unet")  # fmt: skip
    done = run_bench(tmp_path, "unet")
    full_table(done, tmp_path, HALF + SAME_UNGUIDED, "unet, batch 4, 20 steps, guidance 1")


UNET = """
from bench.peers import denoising_diffusion

def make():
    theirs = denoising_diffusion()
    unet = theirs.Unet(dim=8, dim_mults=(1,), channels=1, full_attn=(False,))  # in its middle attention is full
    return theirs.GaussianDiffusion(unet, image_size=16, timesteps=100, beta_schedule="linear", objective="pred_noise")
"""


def compiled_half_is_nan(model: str) -> bool:
    """Whether `torch.compile`, called on the network by nobody but this test, makes NaN of it in bfloat16.

    PyTorch 2.13 did on an Intel Xeon with AMX, where a convolution's output goes into a concatenation.
    """
    network = load_model(model, "cpu").network.to(torch.bfloat16)
    x, t = torch.randn(4, 1, 16, 16, dtype=torch.bfloat16), torch.full((4,), 50)
    with torch.inference_mode():
        assert network(x, t).isfinite().all()
        return not torch.compile(network, dynamic=False)(x, t).isfinite().all()


@pytest.mark.long
def test_a_unet_of_denoising_diffusion_pytorch_goes_through_to_a_full_table(tmp_path):
    pytest.importorskip("einops")
    (tmp_path / "theirs.py").write_text(UNET)
    done = run_bench(tmp_path, "theirs.py:make")
    broken = ("all-half",) if done.returncode == 1 and compiled_half_is_nan(f"{tmp_path / 'theirs.py'}:make") else ()
    full_table(done, tmp_path, HALF + SAME_UNGUIDED, "theirs.py:make, batch 4, 20 steps, guidance 1", broken)
