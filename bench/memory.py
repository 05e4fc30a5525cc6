"""A row's memory: phases, parts and how its peak grows with the batch and the steps. Derived from metered bytes."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.interleave import Arm, Stage
from bench.meter import Usage

PHASES = ("weights loaded", "first call", "steady")
PARTS = ("weights", "state and noise", "activations", "workspace")


@dataclass(frozen=True)
class Fit:
    """peak = fixed + per_image · batch + per_step · steps, in bytes; error: largest relative miss of a point."""

    fixed: float
    per_image: float
    per_step: float
    error: float

    def peak(self, batch: int, steps: int) -> float:
        return self.fixed + self.per_image * batch + self.per_step * steps

    def largest_batch(self, available_bytes: float, steps: int) -> int:
        """The largest batch whose peak stays within what is available, 0 if none does."""
        if self.per_image <= 0:
            return 0
        return max(0, int((available_bytes - self.peak(0, steps)) // self.per_image))


def fit(points: Sequence[Sequence[float]]) -> Fit | None:
    """Through (batch, steps, bytes): what a step adds from points of one batch, the rest by least squares.

    In this order, lest a peak that bends with the batch (another algorithm) be laid on the steps. None where the
    points hold fewer than two batches, or no two numbers of steps at one batch.
    """
    table = np.array(points, dtype=float).reshape(-1, 3)
    slopes = [(q[2] - p[2]) / (q[1] - p[1]) for p, q in itertools.combinations(table, 2)
              if p[0] == q[0] and p[1] != q[1]]  # fmt: skip
    if not slopes or len(set(table[:, 0])) < 2:
        return None
    per_step = float(np.mean(slopes))
    level = table[:, 2] - per_step * table[:, 1]
    terms = np.column_stack([np.ones(len(table)), table[:, 0]])
    fixed, per_image = map(float, np.linalg.lstsq(terms, level, rcond=None)[0])
    made = Fit(fixed, per_image, per_step, 0.0)
    return replace(made, error=max(abs(made.peak(int(b), int(s)) / size - 1) for b, s, size in table))


def table_bytes(arm: Arm) -> int:
    """What a step takes of the trajectory's own tables: its row, as kept and on the device, its timestep and level."""
    coefficients = arm.trajectory.rows.shape[1]
    on_device = coefficients * 4 + 8
    return on_device if arm.model.device.type == "cuda" else on_device + coefficients * 8 + 8


def state_bytes(arm: Arm, stage: Stage) -> int:
    """The loop's own tensors beside the starting noise: the state, its successor, the noise and its stand-in.

    With memory also the estimates of the step before, and of this one.
    """
    return (6 if arm.trajectory.remembers else 4) * stage.x.numel() * stage.x.element_size()


@dataclass
class Static:
    """Bytes that stay: the weights with every copy a variant makes of them; the state, its condition and buffers."""

    weights: int = 0
    state: int = 0

    def keep(self, first_call: Usage, packs: bool) -> None:
        """Add what stays of a first call: weights, where a compiler packs them, else the buffers of a step or graph."""
        stays = max(0, first_call.live_after - first_call.live_before)
        if packs:
            self.weights += stays
        else:
            self.state += stays


def build(meter, stage: Callable[[], Stage], arm: Callable[[Stage], Arm], weights: int) -> tuple[Stage, Arm, Static]:
    """Make a stage and an arm, metered. weights: bytes of the model's own."""
    with meter.watch() as of_stage:
        made = stage()
    with meter.watch() as of_arm:
        contender = arm(made)
    path = contender.trajectory
    table = (path.rows.numel() + path.noise.numel()) * 8 if made.model.device.type == "cpu" else 0
    copies = max(0, of_arm.live_after - of_arm.live_before - table)
    return made, contender, Static(weights + copies, of_stage.live_after - of_stage.live_before + table)


def parts(usage: Usage, static: Static, in_the_loop: int) -> dict[str, int]:
    """A phase's peak in its parts, bytes. workspace: what is held beyond live tensors."""
    state = static.state + in_the_loop
    return {
        "weights": static.weights, "state and noise": state,
        "activations": max(0, usage.live_peak - static.weights - state),
        "workspace": max(0, usage.held - usage.live_peak),
    }  # fmt: skip


def available_bytes(device: torch.device) -> int:
    """Memory that could still be had: the device's free part, or the system's within the control group's limit."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _system_bytes()


def free_bytes() -> int | None:
    """Memory of the system that could be had now; None where it does not tell."""
    try:
        return _system_bytes()
    except (OSError, KeyError):
        return None


def _system_bytes() -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = (_number(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    return free if limit is None or used is None else min(free, limit - used)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file, or 'max'
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator gave up (PyTorch's for the CPU raises a plain RuntimeError)."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def out_of_memory(batch: int, needed: float | None, had: float | None, otherwise: str = "") -> str:
    """A batch that did not fit, with what it would have needed, in bytes; `otherwise` where nobody knows."""
    known = None not in (needed, had)
    return f"out of memory at batch {batch:,}: " + (
        f"needed about {human(needed)}, had {human(had)}" if known else otherwise
    )


def human(size: float | None) -> str:
    """Bytes in MiB or GiB."""
    if size is None:
        return "–"
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"


def thinned(timeline: Sequence[tuple[float, int]], most: int = 150) -> list[list[Any]]:
    """A timeline in few points: the highest of each stretch, so that no peak is lost."""
    stride = -(-len(timeline) // most) if timeline else 1
    stretches = [timeline[i : i + stride] for i in range(0, len(timeline), stride)]
    return [[round(at, 6), live] for at, live in (max(stretch, key=lambda p: p[1]) for stretch in stretches)]
