"""Measurements made up from known figures, so that what is derived from them is known too."""

import base64

import numpy as np

from bench.measurement import Measurement
from bench.workload import Workload, workload

ENVIRONMENT = {
    "machine": "made-up-cpu", "cpu": "Made-up CPU", "cpus": 2, "cpu_capability": "AVX2", "torch": "2.11.0",
    "commit": "0123456789", "dirty": False,
}  # fmt: skip


def measurement(rows: list[str], events: list[dict], given: Workload | None = None, **more) -> Measurement:
    """A measurement of these rows and events; more: fields that differ from a finished run's."""
    fields = {"started": "2026-01-02T03:04:05Z", "command": "made up", "took_s": 1.5, **more}
    return Measurement(given or workload("quick"), dict(ENVIRONMENT), rows, events=events, **fields)


def pairs(row: str, ratios: dict[int, list[float]], reference_s: float = 0.01) -> list[dict]:
    """Pairs in which the row takes these multiples of the reference, by process; the wall says twice that."""
    return [
        {"event": "pair", "row": row, "process": process, "round": i, "reference_s": reference_s,
         "row_s": reference_s * ratio, "reference_wall_s": reference_s, "row_wall_s": 2 * reference_s * ratio,
         "reference_first": bool(i % 2)}
        for process, values in ratios.items() for i, ratio in enumerate(values)
    ]  # fmt: skip


def first_call(row: str, steps: int, seconds: float = 0.5, compiled_now: bool = False) -> dict:
    return {"event": "first_call", "row": row, "process": -1, "steps": steps, "seconds": seconds,
            "compiled_now": compiled_now}  # fmt: skip


def probe(row: str, largest: float) -> dict:
    return {"event": "probe", "row": row, "process": -1, "largest": largest, "rms": largest / 10}


def segments(row: str, steps: int, seconds: float, parts: int = 4, run: int = 0) -> list[dict]:
    """A whole run in equal parts."""
    return [
        {"event": "segment", "row": row, "process": 0, "run": run, "index": i, "steps": steps // parts,
         "seconds": seconds / parts, "wall_s": seconds / parts}
        for i in range(parts)
    ]  # fmt: skip


def pictures(row: str, grey: np.ndarray) -> dict:
    """Pictures [B, C, H, W] uint8 as a worker reports them."""
    text = base64.b64encode(grey.tobytes()).decode()
    return {"event": "pictures", "row": row, "process": 0, "shape": list(grey.shape), "uint8_base64": text}


def everything() -> Measurement:
    """Every kind of row: ok, timed whole and not, lossless and not, red, grey, missing and with odd names."""
    rng = np.random.default_rng(0)
    grey = {row: rng.integers(0, 256, (4, 1, 28, 28), np.uint8) for row in ("reference", "ddim")}
    events = [
        {"event": "unavailable", "row": "tf32", "message": "needs CUDA"},
        first_call("reference", 1000), first_call("batched-cfg", 1000), first_call("ddim", 50),
        first_call("textbook", 1000), first_call("compiled", 1000, 31.0, True),
        probe("reference", 0.0), probe("batched-cfg", 1e-6), probe("compiled", 0.3),
        {"event": "error", "row": "a|b<i>", "process": -1, "message": "ValueError: <lambda>|x costs $5 or $"},
        *pairs("batched-cfg", {0: [0.8, 0.9], 1: [0.82], 2: [0.81, 0.79, 0.8]}),
        *pairs("compiled", {0: [0.5], 1: [0.5], 2: [0.5]}),
        *pairs("ddim", {0: [1.0], 1: [1.01], 2: [0.99]}),
        *pairs("textbook", {0: [1.1], 1: [1.12], 2: [1.11]}),
        *segments("reference", 1000, 10.0), *segments("batched-cfg", 1000, 8.0, 5)[:4],
        *segments("ddim", 50, 0.5, 10),
        {"event": "axis", "row": "reference", "process": 0, "batch": 1, "steps": 1000,
         "step_s": [0.004, 0.003, 0.005], "step_wall_s": [0.004, 0.003, 0.005]},
        {"event": "axis", "row": "reference", "process": 0, "batch": 16, "steps": 1000,
         "step_s": [0.04, 0.03, 0.05], "step_wall_s": [0.04, 0.03, 0.05]},
        {"event": "axis_error", "row": "batched-cfg", "process": 0, "batch": 16, "message": "no memory"},
        {"event": "empty_cache", "process": 0, "text": "nothing to empty", "advice": "not on a CPU"},
        *(pictures(row, values) for row, values in grey.items()),
    ]  # fmt: skip
    rows = ["reference", "textbook", "batched-cfg", "compiled", "tf32", "ddim", "channels-last", "a|b<i>"]
    return measurement(rows, events)
