"""A network so small that a whole search takes seconds, and contenders that must never be its answer."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from bench.contenders import Contender
from bench.tune.space import CONTENDERS as SPACE
from sampler import Model, linear
from sampler.posterior import State
from sampler.variants import Variant, native_drawn_update

STEPS = 120  # more than the last of them lives
FAILS_AFTER = 100


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.label, self.net = nn.Embedding(11, 64), nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        e = self.label(label).to(x.dtype) * (t / STEPS).to(x.dtype)[:, None]
        return self.net(torch.cat([x, e.reshape(x.shape)], dim=1))


def make() -> Model:
    torch.manual_seed(0)
    return Model("tiny", Net(), shape=(1, 8, 8), schedule=linear(STEPS), classes=10, null_label=10)


def _half_done(step):
    """Takes every other step and hands the state on in between: twice as fast, and wrong."""

    def walk(state, leg, after):
        for i, (timestep, t, row) in enumerate(zip(leg.timesteps, leg.ts.split(1), leg.rows.unbind(), strict=True)):
            state = step(state, leg.noise(timestep, state.x), t, row) if i % 2 else state
            after(leg.first + i, state.x)
        return state

    return walk


def _leaks():
    native, kept = native_drawn_update.load(), []

    def apply(state: State, *of_a_step) -> State:
        kept.append(state.x.clone())
        return native(state, *of_a_step)

    return apply


def _fails_late():
    native, taken = native_drawn_update.load(), 0

    def apply(*of_a_step) -> State:
        nonlocal taken
        taken += 1
        if taken > FAILS_AFTER:
            raise RuntimeError("planted to fail after 100 steps")
        return native(*of_a_step)

    return apply


BATCHED = next(c for c in SPACE if c.name == "batched")  # they cheat on top of what truly helps


def planted(name: str, changes: str, **seams) -> Contender:
    return Contender(name, changes, Variant(name, guide=BATCHED.variant.guide, **seams), engaged=BATCHED.engaged)


# what truly is fastest here, the update in C++, were it not for what comes with it
CONTENDERS = [
    planted("wrong", "takes every other step", runtime=_half_done),
    planted("leaks", "keeps every state", update=replace(native_drawn_update, load=_leaks), needs="cpu"),
    planted("fails-late", "fails after 100 steps", update=replace(native_drawn_update, load=_fails_late), needs="cpu"),
]
