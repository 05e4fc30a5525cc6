"""Other implementations draw the same picture as ours from the same noise, and go through the harness as rows."""

from dataclasses import replace

import pytest
import torch

from bench import peers_command, store
from bench.contenders import CONTENDERS
from bench.environment import ROOT
from bench.inspection import Inspection
from bench.interleave import Stage
from bench.measurement import Measurement
from bench.peers import CONTENDERS as EXTRA
from bench.peers import COUNTERPARTS, ours_instead
from bench.peers import OURS as OURS_ON
from bench.workload import Workload
from sampler.models import load_model
from sampler.noise import GeneratorNoise, PhiloxNoise
from tests.bench.committed import assert_same_tables
from tests.bench.synthetic import first_call, measurement, pairs, probe

SAME_PICTURE = 1e-4  # of numbers in about [-1, 1]
OURS = {"diffusers-ddpm": "reference", "ddpm-pytorch": "reference", "azula-ddpm": "reference",
        "diffusers-ddim": "ddim", "azula-ddim": "ddim"}  # fmt: skip
ROWS = {**CONTENDERS, **{c.name: c for c in EXTRA}}
PEERS = [contender for contender in EXTRA if contender.name in OURS]
here = [pytest.param(c, id=c.name, marks=pytest.mark.skipif(bool(c.unavailable("cpu")), reason=c.unavailable("cpu")))
        for c in PEERS]  # fmt: skip


def stage(guidance=3.0, steps=1000):
    return Stage(Workload(batch=2, guidance=guidance, steps=steps), load_model(), 2)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("peer", here)
def test_the_same_picture_on_a_short_path(peer, guidance):
    made = stage(guidance, steps=20 if OURS[peer.name] == "reference" else 400)
    theirs, ours = made.arm(peer), made.arm(CONTENDERS[OURS[peer.name]])
    assert theirs.steps == ours.steps == 20
    noise = PhiloxNoise(5, range(2))
    a, b = (arm.advance(made.x, range(20), noise) for arm in (theirs, ours))
    assert (a - b).abs().max() < SAME_PICTURE
    assert b.std() > 0.1
    if OURS[peer.name] == "reference":
        assert (theirs.probe(made.x, noise) - ours.probe(made.x, noise)).abs().max() < SAME_PICTURE


@pytest.mark.parametrize("name", [*(pytest.param(c.name, marks=p.marks) for c, p in zip(PEERS, here, strict=True)),
                                  "ddim-batched", pytest.param("ddim-lossless", marks=pytest.mark.slow)])  # fmt: skip
def test_what_the_table_says_of_the_picture_is_found_on_twenty_steps_of_the_rows_kind(name):
    made, found = stage(), []
    row = ROWS[name]
    inspection = Inspection({"workload": made.workload.json()}, row, lambda **event: found.append(event))
    inspection.stage, inspection.arm = made, made.arm(row)
    inspection.compare()
    path = inspection.arm.probe_path
    assert (path.name, path.steps) == ("ddim(η=0)" if "ddim" in name else "ancestral", 20)
    assert [event["event"] for event in found] == ["probe"]
    assert 0 <= found[0]["largest"] < SAME_PICTURE


@pytest.mark.long
@pytest.mark.parametrize("peer", here)
def test_the_same_picture_after_all_steps(peer):
    made = stage()
    theirs, ours = made.arm(peer), made.arm(CONTENDERS[OURS[peer.name]])
    noise = PhiloxNoise(5, range(2))
    a, b = (arm.advance(made.x, range(arm.steps), noise) for arm in (theirs, ours))
    assert (a - b).abs().max() < SAME_PICTURE


@pytest.mark.parametrize("peer", here)
def test_a_peer_draws_its_own_noise_when_it_is_timed(peer):
    """And any step can be taken alone, as slices do."""
    made = stage()
    arm = made.arm(peer)
    seen = []
    first, again = (
        arm.advance(made.x, [3, 3, 7], GeneratorNoise(torch.Generator().manual_seed(0)), lambda i, x: seen.append(i))
        for _ in range(2)
    )
    assert seen == [0, 1, 2] * 2
    assert first.isfinite().all()
    assert torch.equal(first, again) == (OURS[peer.name] == "ddim")


def test_what_a_library_asks_for_noise_is_put_back():
    ours = torch.randn_like
    path = CONTENDERS["ddim"].path(load_model(), 100)
    with ours_instead(torch, "randn_like", path, PhiloxNoise(0, range(2))):
        assert torch.randn_like is not ours
    assert torch.randn_like is ours


def test_a_peer_that_is_not_installed_says_so():
    absent = replace(PEERS[0], package="no_such_package_at_all")
    assert absent.unavailable("cpu") == "no_such_package_at_all is not installed"


def test_every_peer_has_a_counterpart_that_takes_the_same_steps():
    made = stage()
    assert list(COUNTERPARTS) == [c.name for c in PEERS]
    for peer, ours in COUNTERPARTS.items():
        assert {ROWS[name].path(made.model, 1000).timesteps for name in (*ours, *OURS_ON[ROWS[peer].path])} == {
            ROWS[peer].path(made.model, 1000).timesteps
        }
        guided = ROWS[ours[0]].variant.guide
        assert (guided.__name__ == "batched_cfg") == peer.startswith("diffusers")
        # none that draws another picture is called our fastest
        assert all(CONTENDERS[ROWS[name].variant.name].lossless for name in OURS_ON[ROWS[peer].path])


def beside(ratios: dict[str, float], guidance: float = 3.0) -> Measurement:
    """Rows that take these multiples of the reference's time a step, in three processes."""
    events = [first_call("reference", 1000)]
    for name, ratio in ratios.items():
        events.append(first_call(name, ROWS[name].path(load_model(), 1000).steps))
        events += pairs(name, {0: [ratio * 0.99], 1: [ratio], 2: [ratio * 1.01]})
        events.append(probe(name, 2e-6))
    return measurement(["reference", *ratios], events, Workload(guidance=guidance))


def test_every_loop_has_our_fastest_of_as_many_steps_beside_it():
    made = beside({"all-lossless": 0.6, "ddim": 1.0, "ddim-batched": 0.8, "ddim-lossless": 0.5,
                   "diffusers-ddpm": 0.9, "azula-ddim": 1.1})  # fmt: skip
    assert peers_command.fastest(made, "diffusers-ddpm").name == "all-lossless"
    assert peers_command.fastest(made, "azula-ddim").name == "ddim-lossless"
    shown = peers_command.page([made])
    assert "| diffusers-ddpm | 3 | batched-cfg: – | all-lossless: 1.50 [1.50, 1.50] | 2.0e-06 |" in shown
    assert "| azula-ddim | 3 | ddim: 1.10 [1.10, 1.10] | ddim-lossless: 2.20 [2.20, 2.20] | 2.0e-06 |" in shown
    assert "| azula-ddim | 11.00 | 50 | ddim: 1.10 [" in shown


def test_a_row_that_was_not_raced_or_is_red_is_not_our_fastest():
    made = beside({"ddim": 1.0, "ddim-lossless": 0.5, "azula-ddim": 1.1})
    made.events.append({"event": "error", "row": "ddim-lossless", "message": "no compiler"})
    assert peers_command.fastest(made, "azula-ddim").name == "ddim"
    made.events.append({"event": "unavailable", "row": "azula-ddim", "message": "azula is not installed"})
    assert "| azula-ddim | 3 | – | – | azula is not installed |" in peers_command.in_short([made])


def test_the_page_and_the_readme_show_what_is_committed():
    """Of each guidance scale the newest result; the README's table is the head of peers.md."""
    folder = ROOT / "results" / "amd-epyc-avx512-2cpu" / "peers"
    made = [store.load(store.runs(scale)[-1]) for scale in sorted(folder.glob("guidance-*"))]
    assert [m.workload.guidance for m in made] == [1, 3]
    assert_same_tables((folder / "peers.md").read_text(), peers_command.page(made))
    readme = (ROOT / "README.md").read_text()
    assert peers_command.in_short(made) in readme
    assert all(f"commit {m.environment['commit']}" in readme for m in made)
