"""The walk as the page shows it: pictures as films of frames, signals as numbers, and when what is decided."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.report.pictures import address
from bench.walk import NOISE_RANGE, Walk, Way

KINDS = (
    ("x", "x_t", "the noisy state"), ("x0", "x0", "the estimate of the picture"), ("noise", "ε", "the noise predicted"),
)  # fmt: skip
EARLY, LATE = 0.8, 0.2  # share of the estimate's way to the finished sample that is left when a phase ends


@dataclass(frozen=True)
class View:
    """What the template needs to know. left: share of the way left at each frame, by sampler."""

    walk: Walk
    left: dict[str, list[float]]
    message: str
    phases: tuple[int, int]  # frames at which the middle and the late part begin, DDPM's

    @property
    def kinds(self) -> tuple[tuple[str, str, str], ...]:
        return KINDS

    def line(self, way: str) -> str:
        """The curve of what is left as the points of a line, frame against 0…100 from above."""
        return " ".join(f"{i},{100 - 96 * share:.1f}" for i, share in enumerate(self.left[way]))

    @property
    def frames(self) -> int:
        return len(self.walk.timesteps) + 1


def view(walk: Walk | None) -> View | None:
    if walk is None:
        return None
    left = {way.name: _left(way) for way in walk.images}
    first = left[walk.images[0].name]
    middle = next(i for i, share in enumerate(first) if share <= EARLY)
    late = next(i for i, share in enumerate(first) if share <= LATE)
    t = [*walk.timesteps, 0]
    message = (f"The picture is decided in the middle: between t = {t[middle]} and t = {t[late]} the estimate goes "
               f"{EARLY - LATE:.0%} of its way")  # fmt: skip
    return View(walk, left, message, (middle, late))


def _left(way: Way) -> list[float]:
    """RMS distance of each estimate from the finished sample, as a share of the first one's."""
    x0 = way.x0.astype(np.float64)
    gaps = np.sqrt(np.mean((x0 - x0[-1]) ** 2, axis=tuple(range(1, x0.ndim))))
    return [float(gap) for gap in gaps / max(gaps.max(), 1e-12)]


def data(walk: Walk) -> dict[str, Any]:
    """For the page's script: all frames in one picture, by sampler and kind; the signals in hundredths."""
    frames, samples, _, height, width = walk.images[0].x.shape
    return {
        "timesteps": list(walk.timesteps), "frames": frames, "samples": samples, "height": height, "width": width,
        "noiseRange": NOISE_RANGE,
        "images": {way.name: {kind: _film(getattr(way, kind)) for kind, *_ in KINDS} for way in walk.images},
        "signals": {way.name: {kind: _hundredths(getattr(way, kind)) for kind, *_ in KINDS} for way in walk.signals},
    }  # fmt: skip


def _film(frames: np.ndarray) -> str:
    """Frames [F, B, C, H, W] uint8 as one picture [F · H, B · W] in a data address."""
    f, b, c, h, w = frames.shape
    return address(frames.transpose(0, 3, 1, 4, 2).reshape(f * h, b * w, c))


def _hundredths(signal: np.ndarray) -> list[list[int]]:
    """[F, 1, …, n] as whole hundredths, [F][n]."""
    return np.rint(signal.reshape(len(signal), -1) * 100).astype(int).tolist()
