"""Layer 1: rows that only round differently pass, and a fault planted in each seam is caught by it."""

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bench.__main__ import main
from bench.quality import divergence
from bench.quality.same_noise import Divergence, SameNoise
from bench.workload import workload
from sampler import guidance, precision, runtime, schedule
from sampler.guidance import Condition
from sampler.models import Model
from sampler.posterior import Guided, State, posterior, posterior_of
from sampler.trajectory import Trajectory, ancestral, dpmpp_2m, spaced
from sampler.variants import LIMITED, VARIANTS, Update, Variant, build

STEPS, BATCH, SCALE = 12, 3, 3.0


class Labelled(nn.Module):
    """A small network that listens to all of its inputs."""

    def __init__(self):
        super().__init__()
        self.convolution, self.label = nn.Conv2d(1, 1, 3, padding=1), nn.Embedding(4, 1)

    def forward(self, x, t, condition):
        moved = self.convolution(x) + self.label(condition)[..., None, None] + t.view(-1, 1, 1, 1) / 1000
        return torch.tanh(moved)


class Restless(Labelled):
    """Never gives the same answer twice."""

    def forward(self, x, t, condition):
        return super().forward(x, t, condition) + 1e-3 * torch.randn(())


@pytest.fixture(scope="module")
def path() -> Trajectory:
    linear = schedule.linear()
    return ancestral(linear, spaced(linear, STEPS))


def judged(variant: Variant, path: Trajectory, declared: Trajectory | None = None, kind=Labelled) -> Divergence:
    torch.manual_seed(0)
    network = kind()
    model = Model("tiny", network, (1, 8, 8), schedule.linear(), classes=3, null_label=3)
    condition = Condition.labels(torch.tensor([0, 1, 2]), 3)
    same = SameNoise(model, condition, SCALE, BATCH)
    return same.divergence(build(variant, network, condition, SCALE), path, path if declared is None else declared)


@pytest.mark.parametrize(
    "name", ["reference", "batched-cfg", "channels-last", "native-update", "autocast-bf16", "cast-bf16"]
)
def test_a_row_that_rounds_differently_is_the_same_sample(name: str, path) -> None:
    found = judged(VARIANTS[name], path)
    assert found.fault == ""
    assert found.timesteps == path.timesteps
    assert len(found.error) == len(found.own) == len(found.floor) == STEPS
    assert found.repeats
    assert 0 < found.own[-1] < 1e-5 or found.factor == 3
    assert Divergence.from_json(json.loads(json.dumps(found.json()))) == found


def test_the_reference_has_its_own_bits_and_half_precision_has_not(path) -> None:
    assert judged(VARIANTS["reference"], path).same_bits
    half = judged(VARIANTS["cast-bf16"], path)
    assert half.same_bits  # of the reference in its own precision
    assert half.own[-1] > 100 * judged(VARIANTS["reference"], path).own[-1]


def test_limited_guidance_is_held_against_a_reference_that_guides_as_often(path) -> None:
    assert judged(VARIANTS["limited-guidance"], path).fault == ""


def louder(x, out, z, row):
    """All σ off in the fourth digit."""
    return posterior(x, out, z * 1.0003, row)


def swapped(x, out, z, row):
    """The halves of the guidance change places."""
    return posterior(x, Guided(out.unconditional, out.conditional, out.scale), z, row)


def stored_in_half(x, out, z, row):
    return posterior(x, out, z, row).half().float()


def reusing():
    first = []

    def apply(x, out, z, row):
        first.append(z.clone())
        return posterior(x, out, first[0], row)

    return apply


def skipping():
    calls = 0

    def apply(x, out, z, row):
        nonlocal calls
        calls += 1
        return x if calls == 4 else posterior(x, out, z, row)

    return apply


FAULTS = {
    "all sigmas off in the fourth digit": Variant("fault", update=Update(lambda: louder)),
    "halves of the guidance swapped": Variant("fault", update=Update(lambda: swapped)),
    "noise used again": Variant("fault", update=Update(reusing)),
    "one step left out": Variant("fault", update=Update(skipping)),
    "the state in float16": Variant("fault", update=Update(lambda: stored_in_half)),
    "half precision that says it is full": Variant(
        "fault", layout=lambda network: precision.cast(torch.bfloat16)(network).network
    ),
    "another guidance scale": Variant("fault", guide=lambda n, c, s: guidance.sequential_cfg(n, c, s * 1.001)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_any_seam_is_caught(name: str, path) -> None:
    found = judged(FAULTS[name], path)
    assert found.fault.startswith("layer 1 (same noise): at timestep ")
    assert "off a float64 run" in found.fault


def test_a_coefficient_off_in_the_sixth_digit_is_caught_exactly(path) -> None:
    rows = path.rows.clone()
    rows[5, 2] *= 1 + 1e-6
    found = judged(VARIANTS["reference"], replace(path, rows=rows), path)
    assert f"its table differs from the declared one: c at timestep {path.timesteps[5]}" in found.fault


def test_a_step_missing_from_the_path_is_caught(path) -> None:
    shorter = path.at([i for i in range(STEPS) if i != 4])
    found = judged(VARIANTS["reference"], shorter, path)
    assert f"timestep {path.timesteps[4]} is missing" in found.fault


def test_a_reference_that_does_not_repeat_is_the_finding(path) -> None:
    assert "does not repeat its bits" in judged(VARIANTS["reference"], path, kind=Restless).fault


def test_nan_is_outside_every_bound(path) -> None:
    broken = Variant("fault", update=Update(lambda: lambda x, out, z, row: posterior(x, out, z, row) * float("nan")))
    assert judged(broken, path).fault


# Solvers with memory


def remembering(path):
    return dpmpp_2m(schedule.linear(), path.timesteps)


def never_stored(state, out, z, row):
    """Reads a history that nobody writes."""
    return State(posterior_of(state, out, z, row).x, state.before)


def of_the_last_picture():
    """At each step hands on the estimate that it made there for the picture before this one."""
    kept: dict[float, Tensor] = {}

    def apply(state, out, z, row):
        made = posterior_of(state, out, z, row)
        earlier = kept.get(float(row[0]), made.before)
        kept[float(row[0])] = made.before
        return State(made.x, earlier)

    return apply


def walks_that_remember_alone(step):
    """Each kind of step (guided or not) goes on from what it kept itself."""
    walk, kept = runtime.eager(step), {}

    def own(state, leg, after):
        state = walk(State(state.x, kept.get("before", state.before)), leg, after)
        kept["before"] = state.before
        return state

    return own


FORGETFUL = {
    "never stored": Variant("fault", update=Update(lambda: never_stored, remembers=True)),
    "the last picture's": Variant("fault", update=Update(of_the_last_picture, remembers=True)),
    "not handed from one kind of step to the other": Variant(
        "fault", runtime=walks_that_remember_alone, guided_between=LIMITED
    ),
}


@pytest.mark.parametrize("name", FORGETFUL)
def test_a_history_that_is_not_this_pictures_is_caught(name: str, path) -> None:
    assert "layer 1 (same noise): at timestep" in judged(FORGETFUL[name], remembering(path)).fault


@pytest.mark.parametrize("name", ["reference", "batched-cfg", "limited-guidance", "native-update"])
def test_rows_that_remember_pass(name: str, path) -> None:
    found = judged(VARIANTS[name], remembering(path))
    assert found.fault == ""
    assert found.repeats


def test_a_table_without_memory_is_not_one_with_it(path) -> None:
    assert (
        "its table has no column g, and the declared one a"
        in judged(VARIANTS["reference"], path, remembering(path)).fault
    )


def test_the_command_compares_rows_and_draws(tmp_path, capsys) -> None:
    arguments = [
        "divergence",
        "--rows",
        "reference,batched-cfg",
        "--steps",
        "3",
        "--batch",
        "2",
        "--out",
        str(tmp_path),
    ]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "| batched-cfg |" in text
    (folder,) = tmp_path.glob("*/divergence")
    assert {p.name for p in folder.iterdir()} == {f"divergence.{kind}" for kind in ("json", "csv", "md", "png")}
    assert len((folder / "divergence.csv").read_text().splitlines()) == 1 + 2 * 3


@pytest.mark.slow
def test_two_processes_find_what_one_finds() -> None:
    asked = workload("quick", steps=2, batch=2)
    rows = ["reference", "autocast-bf16", "limited-guidance", "batched-cfg"]
    alone: dict[str, Divergence] = {}
    together: dict[str, Divergence] = {}
    wrong: dict[str, str] = {}
    divergence.compare(asked, rows, alone, wrong)
    divergence.compare(asked, rows, together, wrong, processes=2)
    assert list(together) == rows
    assert together == alone
    assert wrong == {}


def test_a_row_outside_its_bound_turns_the_exit(tmp_path, capsys, monkeypatch) -> None:
    from bench.contenders import CONTENDERS, Contender

    faulty = Contender("loud", "planted", FAULTS["all sigmas off in the fourth digit"])
    monkeypatch.setitem(CONTENDERS, "loud", faulty)
    arguments = ["divergence", "--rows", "loud", "--steps", "3", "--batch", "2", "--out", str(tmp_path)]
    assert main(arguments) == 1
    assert "layer 1 (same noise): at timestep" in capsys.readouterr().out


def test_a_row_of_other_steps_is_refused(capsys) -> None:
    assert main(["divergence", "--rows", "ddim"]) == 3
    assert "takes other steps" in capsys.readouterr().err
    assert main(["divergence", "--rows", "refrence"]) == 3
    assert "reference" in capsys.readouterr().err


def test_the_same_divergence_makes_the_same_chart(path) -> None:
    found = {"reference": judged(VARIANTS["reference"], path), "loud": judged(next(iter(FAULTS.values())), path)}
    assert divergence.chart(found, "heading") == divergence.chart(found, "heading")


def test_a_page_on_which_no_row_errs_is_drawn_all_the_same() -> None:
    """A logarithm's axis without a number may put its ticks at 0."""
    none = (0.0, 0.0, 0.0)
    found = {"exact": divergence.Divergence((900, 500, 100), none, none, none, 2.0, True, True)}
    assert divergence.chart(found, "all alike").startswith(b"\x89PNG")
    assert [divergence._power(value) for value in (0.0, 1e-7, 10.0)] == ["0", "10⁻⁷", "10¹"]
