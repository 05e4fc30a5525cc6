"""A fault in any seam, planted as a row of the table, turns it red by name, and the exit; rounding alone does not."""

from dataclasses import replace

import pytest
import torch

from bench import __main__
from bench.__main__ import failures
from bench.contenders import CONTENDERS, REFERENCE, ddim_path, full_path
from bench.interleave import Stage
from bench.quality import same_noise
from bench.quality.same_noise import Divergence, SameNoise, compare_tables
from bench.run import measure
from bench.workload import workload
from sampler.models import Model, load_model
from sampler.variants import VARIANTS, build
from tests.bench import synthetic
from tests.bench.quality.faults import FAULTS

SMALL = workload("smoke", batch=1, steps=20)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("fashion-mnist")


@pytest.fixture(scope="module")
def short(model) -> tuple[SameNoise, object]:
    """Truths shared by all tests, on a path of 12 steps."""
    return SameNoise(model, model.condition(torch.arange(2)), 3.0, 2), full_path(model, 12)


@pytest.fixture(scope="module")
def stage(model) -> Stage:
    return Stage(SMALL, model, 1)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch) -> None:
    monkeypatch.setattr(same_noise, "SHORT", 10)


def row_of(name: str, found: Divergence):
    """The row as the table would show it, had this been found of it."""
    events = [synthetic.first_call(name, 20), *synthetic.pairs(name, {0: [0.5], 1: [0.5], 2: [0.5]}),
              {"event": "divergence", "row": name, "process": -1, **found.json()}]  # fmt: skip
    made = synthetic.measurement([REFERENCE, name], events)
    return made.row(name), made


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_turns_its_row_red_and_the_exit_and_names_the_layer(
    name: str, stage: Stage, monkeypatch, tmp_path, capsys
) -> None:
    contender, words = FAULTS[name]
    found = same_noise.of_contender(stage, contender, stage.arm(contender).sampler)
    row, made = row_of(name, found)
    assert row.status == "red"
    assert row.speedup is None
    assert row.reason.startswith("layer 1 (same noise): ")
    assert words in row.reason
    monkeypatch.setattr(__main__, "measure", lambda *_, **__: made)
    monkeypatch.setattr(__main__, "keep", lambda *_: (tmp_path, []))
    assert __main__.main(["run", "--out", str(tmp_path)]) == 1
    assert f"FAILED {name}: layer 1 (same noise): " in capsys.readouterr().err


@pytest.mark.slow
def test_faults_planted_in_the_whole_job_turn_the_exit(tmp_path, monkeypatch) -> None:
    chosen = ["coefficient-off", "halves-swapped", "half-state"]
    job = measure(SMALL, ["batched-cfg", *chosen], plant="tests.bench.quality.faults")
    assert job.row("batched-cfg").status == "ok"
    assert [name for name, _ in failures(job)] == chosen
    for name in chosen:
        assert job.row(name).speedup is None
    assert "layer 1" in job.row("coefficient-off").reason


@pytest.mark.parametrize("name", ["reference", "batched-cfg", "channels-last", "native-update", "cast-bf16"])
def test_rounding_alone_is_no_fault(name: str, stage: Stage) -> None:
    contender = CONTENDERS[name]
    if why := contender.unavailable("cpu"):
        pytest.skip(why)
    found = same_noise.of_contender(stage, contender, stage.arm(contender).sampler)
    row, made = row_of(name, Divergence.from_json(found.json()))
    assert row.reason == ""
    assert [name for name, _ in failures(made) if name == contender.name] == []
    assert 0 < found.nearest <= 1
    assert len(found.error) == 10


def test_several_steps_are_compared_of_a_row_that_takes_one_of_twenty(stage: Stage) -> None:
    ddim = CONTENDERS["ddim"]
    assert ddim.path(stage.model, SMALL.steps).steps == 1
    found = same_noise.of_contender(stage, ddim, stage.arm(ddim).sampler)
    assert len(found.timesteps) == same_noise.SHORT_OF_FEWER // 20 == 5
    assert found.fault == ""


def test_the_whole_path_is_compared_of_a_row_that_takes_a_small_share_of_the_steps(stage: Stage) -> None:
    few = replace(CONTENDERS["ddim"], name="few", path=ddim_path(1 / 200))
    found = same_noise.of_contender(stage, few, stage.arm(few).sampler)
    assert len(found.timesteps) == few.path(stage.model, 1000).steps == 5
    assert found.fault == ""


def test_the_reference_repeats_its_bits_and_a_limited_row_has_its_own_truth(model, short) -> None:
    compared, path = short
    condition = compared.condition
    reference = compared.divergence(build(VARIANTS["reference"], model.network, condition, 3.0), path)
    limited = compared.divergence(build(VARIANTS["limited-guidance"], model.network, condition, 3.0), path)
    for found in (reference, limited):
        assert found.repeats
        assert found.same_bits
        assert found.fault == ""
        assert found.error == found.own
    assert 1e-9 < reference.error[-1] < 1e-4
    assert limited.error[-1] < 1e-4  # against guidance everywhere it would be far off


def test_half_precision_is_held_to_the_reference_in_half_precision(model, short) -> None:
    compared, path = short
    found = compared.divergence(build(VARIANTS["autocast-bf16"], model.network, compared.condition, 3.0), path)
    assert found.factor == 3.0
    assert found.own[-1] > 1e-3
    assert found.fault == ""


def test_a_reference_that_does_not_repeat_itself_is_the_finding() -> None:
    found = Divergence((5, 3), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), 2.0, repeats=False, same_bits=True)
    assert "does not repeat its bits" in found.fault


@pytest.mark.parametrize("error", [1.1e-5, float("nan"), float("inf")])
def test_the_bound_is_a_multiple_of_the_references_own_error_and_a_floor(error: float) -> None:
    own, floor = 4e-6, 2e-6
    inside = 2 * own + floor
    fine = Divergence((5, 3), (inside, inside), (own, own), (floor, floor), 2.0, True, False)
    assert fine.fault == ""
    off = Divergence((5, 3), (inside, error), (own, own), (floor, floor), 2.0, True, False)
    assert "at timestep 3" in off.fault


def test_tables_are_compared_to_the_last_bit(model) -> None:
    path = full_path(model, 10)
    assert compare_tables(path, full_path(model, 10)) == ""
    rows = path.rows.clone()
    rows[4, 2] = torch.nextafter(rows[4, 2], torch.tensor(9.0, dtype=torch.float64))
    other = replace(path, rows=rows)
    assert f"c at timestep {path.timesteps[4]}" in compare_tables(other, path)
