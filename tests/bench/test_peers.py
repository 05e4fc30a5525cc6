"""Other implementations draw the same picture as ours from the same noise, and go through the harness as rows."""

from dataclasses import replace

import pytest
import torch

from bench.contenders import CONTENDERS
from bench.interleave import Stage
from bench.peers import CONTENDERS as EXTRA
from bench.peers import COUNTERPARTS, ours_instead
from bench.workload import Workload
from sampler.models import load_model
from sampler.noise import GeneratorNoise, PhiloxNoise

SAME_PICTURE = 1e-4  # of numbers in about [-1, 1]
OURS = {"diffusers-ddpm": "reference", "ddpm-pytorch": "reference", "azula-ddpm": "reference",
        "diffusers-ddim": "ddim", "azula-ddim": "ddim"}  # fmt: skip
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
    rows = {**CONTENDERS, **{c.name: c for c in EXTRA}}
    made = stage()
    assert list(COUNTERPARTS) == [c.name for c in PEERS]
    for peer, ours in COUNTERPARTS.items():
        assert {rows[name].path(made.model, 1000).timesteps for name in ours} == {
            rows[peer].path(made.model, 1000).timesteps
        }
        guided = rows[ours[0]].variant.guide
        assert (guided.__name__ == "batched_cfg") == peer.startswith("diffusers")
