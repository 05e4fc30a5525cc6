"""Cheats: factories of models that look faster than they are, or do other work than they say, beside an honest one.

Each must be rejected with a message that names what was caught: `tests/bench/gate/test_cheats.py`.
"""

import threading
import time

import torch
from torch import Tensor, nn

from bench.contenders import Contender, ddim_path
from sampler.variants import REFERENCE

WIDTH = 32


class Honest(nn.Module):
    """A small network of convolutions, called as model(x, t)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(4, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
                                     nn.Conv2d(WIDTH, 4, 3, padding=1)])  # fmt: skip

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.sin(layer(x)) + t[:, None, None, None] / 1000
        return x


def honest() -> nn.Module:
    return Honest()


def honest_compiled():
    """Compiled, if only into a graph: a compiler of kernels would take the test's time."""
    return torch.compile(Honest(), backend="aot_eager")


class _Cheat(nn.Module):
    def __init__(self):
        super().__init__()
        self.honest = Honest()


class Cached(_Cheat):
    """Computes once and answers with that from then on."""

    def __init__(self):
        super().__init__()
        self.answer = None

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        if self.answer is None:
            self.answer = self.honest(x, t)
        return self.answer.clone()


class CachedBySum(_Cheat):
    """Recognises an input by a coarse key: as a cache keyed on a part of what matters."""

    def __init__(self):
        super().__init__()
        self.answers: dict = {}

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        key = tuple(x.shape)
        if key not in self.answers:
            self.answers[key] = self.honest(x, t)
        return self.answers[key]


class EveryOther(_Cheat):
    """Skips every second call and hands out the last answer again."""

    def __init__(self):
        super().__init__()
        self.calls, self.last = 0, None

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        if self.calls % 2 or self.last is None:
            self.last = self.honest(x, t)
        return self.last


class SkipsLayers(_Cheat):
    """Leaves out the layer in the middle."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        for layer in (self.honest.layers[0], self.honest.layers[2]):
            x = torch.sin(layer(x)) + t[:, None, None, None] / 1000
        return x


class WorksLater(_Cheat):
    """Returns at once an empty answer, which another thread fills in after the clock has stopped."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out = torch.zeros_like(x)

        def work() -> None:
            with torch.inference_mode():
                time.sleep(0.002)
                out.copy_(self.honest(x, t))

        threading.Thread(target=work, daemon=True).start()
        return out


LEFT_RUNNING = "left running"  # the name of the thread


class KeepsWorking(_Cheat):
    """Answers rightly, but leaves a part of its work (a cache it fills, say) to a thread that goes on."""

    def __init__(self):
        super().__init__()
        self.thread = None

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        def work() -> None:
            until = time.thread_time() + 0.5
            while time.thread_time() < until:
                torch.sin(torch.ones(1000))

        if self.thread is None or not self.thread.is_alive():
            self.thread = threading.Thread(target=work, daemon=True, name=LEFT_RUNNING)
            self.thread.start()
        return self.honest(x, t)


class Lazy(Tensor):
    """A tensor that computes when it is read."""


class ReturnsLazily(_Cheat):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(x).as_subclass(Lazy)


class ChangesInput(_Cheat):
    """Works in its caller's memory."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out = self.honest(x, t)
        x.mul_(0.5)
        return out


class HalfPrecision(_Cheat):
    """Computes in bfloat16 and returns float32, as if nothing were."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.honest(x, t).float()


class OnlyWhenLookedAt(_Cheat):
    """Right in its first calls, which somebody may check, and a constant afterwards."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.honest(x, t) if self.calls < 8 else torch.zeros_like(x)


class Raises(_Cheat):
    """Fails after a while: no time is not a short time."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 8:
            raise RuntimeError("out of tricks")
        return self.honest(x, t)


class Nothing(_Cheat):
    """Returns something that is not a picture."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.honest(x, t) * float("nan")


# what each is caught for: (cheat, the base it is compared with, words of the message)
CHEATS = [
    (Cached, honest, "answers from a cache"),
    (CachedBySum, honest, "answers from a cache"),
    (EveryOther, honest, "other pictures"),
    (SkipsLayers, honest, "it skips work: 2 convolutions and matrix products a call, the base 3"),
    (WorksLater, honest, "other pictures"),
    (KeepsWorking, honest, "works on after it has returned"),
    (ReturnsLazily, honest, "it returned Lazy, not a plain tensor: it may work only when it is read"),
    (ChangesInput, honest, "changes its inputs in place"),
    (HalfPrecision, honest, "computes in another type: 3 convolutions and matrix products in bfloat16"),
    (Honest, honest_compiled, "falls back to eager: nothing was compiled, the base compiled"),
    (OnlyWhenLookedAt, honest, "other pictures"),
    (Raises, honest, "RuntimeError: out of tricks"),
    (Nothing, honest, "differ by nan"),
]

# as a row of the house: planted over the one whose name it takes
CONTENDERS = [Contender("reference", "runs a twentieth of the steps under the reference's name", REFERENCE,
                        ddim_path(1 / 20))]  # fmt: skip
