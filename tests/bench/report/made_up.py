"""What lies beside a result, made up: a walk of a few frames in which every frame differs."""

from dataclasses import replace

import numpy as np

from bench.measurement import Measurement
from bench.walk import Walk, Way
from sampler.model_check import Facts
from tests.bench.synthetic import ENVIRONMENT, everything

TIMESTEPS = (900, 700, 500, 300, 100)
HOSTILE = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"


def walk(environment: dict | None = None) -> Walk:
    """Two samplers' pictures and signals; the estimate comes nearer to the last frame with every frame."""
    rng = np.random.default_rng(0)
    frames = len(TIMESTEPS) + 1

    def way(name: str, steps: int) -> Way:
        x, noise = (rng.integers(0, 256, (frames, 3, 1, 28, 28), np.uint8) for _ in range(2))
        end = rng.integers(100, 256, (3, 1, 28, 28))
        x0 = np.stack([end * (i + 1) / frames for i in range(frames)]).astype(np.uint8)
        return Way(name, steps, x, x0, noise)

    def signal(name: str, steps: int) -> Way:
        return Way(name, steps, *rng.normal(size=(3, frames, 1, 1, 1, 32)).astype(np.float32))

    return Walk(
        {**ENVIRONMENT, **(environment or {})}, "2026-01-02T03:04:05Z", "python -m bench walk", "fashion-mnist", 3.0, 0,
        ("trouser", "bag", "boot"), TIMESTEPS, (way("DDPM", 1000), way("DDIM", 5)),
        (signal("DDPM", 1000), signal("DDIM", 5)),
    )  # fmt: skip


def hostile() -> Measurement:
    """A result in which every string that a stored file may choose tries to be more than text."""
    made = everything()
    made.rows = [*made.rows, HOSTILE]
    message = f"`{HOSTILE}` **{HOSTILE}** </style>"
    made.events.append({"event": "error", "row": HOSTILE, "process": -1, "message": message})
    made.environment |= dict.fromkeys(("cpu", "commit", "torch", "cpu_capability", HOSTILE), HOSTILE)
    made.command, made.started = HOSTILE, HOSTILE
    own = Facts(HOSTILE, (1, 28, 28), 1000, "epsilon", 10, 1, 1, True, (HOSTILE,))
    made.workload = replace(made.workload, model=HOSTILE, own=own)
    return made
