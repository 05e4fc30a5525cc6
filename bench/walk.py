"""`python -m bench walk`: record how pictures and a 1-D signal come out of the noise, for the report to show.

Kept at each of DDIM's timesteps, for DDPM and DDIM from the same start: the state, the x0 estimate, the predicted
noise. The report only shows what is recorded here; it never runs a model.
"""

import argparse
import base64
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import environment, store
from bench.options import OPTIONS, OUT
from bench.progress import Progress
from bench.workload import workload
from sampler import data, signal, strict_json, trajectory
from sampler.errors import UsageError
from sampler.files import writable_folder
from sampler.generate import initial_noise, to_unit
from sampler.guidance import Condition
from sampler.models import Model, load_model
from sampler.noise import PhiloxNoise
from sampler.posterior import State, combine, estimate_x0
from sampler.trajectory import Trajectory
from sampler.variants import VARIANTS, build, run

SCHEMA = 1
FRAMES = 50  # timesteps that are kept: those of DDIM
LABELS = (1, 8, 9)  # of the ten classes: a trouser, a bag, an ankle boot
SIGNAL_SEED = 7  # from which both samplers arrive at a signal worth looking at
NOISE_RANGE = 3.0  # standard deviations that a byte of predicted noise spans, either side
ASKED = ("device", "model", "guidance")


@dataclass(frozen=True)
class Way:
    """One sampler's frames. x, x0, noise: [frames, samples, …]; the last frame is the finished sample."""

    name: str
    steps: int
    x: np.ndarray
    x0: np.ndarray
    noise: np.ndarray


@dataclass(frozen=True)
class Walk:
    """What `bench walk` recorded. images: uint8 [F, B, C, H, W]; signals: float32 [F, 1, n]; by sampler.

    timesteps: at which each frame but the last was taken. labels: of the pictures, in words.
    """

    environment: dict[str, Any]
    started: str
    command: str
    model: str
    guidance: float
    seed: int
    labels: tuple[str, ...]
    timesteps: tuple[int, ...]
    images: tuple[Way, ...]
    signals: tuple[Way, ...]


def add_to(commands) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser("walk", help="record how pictures come out of the noise, for the report")
    for name in ASKED:
        parser.add_argument("--" + name, **OPTIONS[name])
    parser.add_argument("--seed", type=int, default=0, help="same seed, same pictures (%(default)s)")
    parser.add_argument("--out", **OUT)
    parser.set_defaults(do=_run)


def _run(arguments: argparse.Namespace) -> int:
    asked = workload("quick", **{name: getattr(arguments, name) for name in ASKED})
    results = writable_folder(arguments.out or store.home(asked))
    with Progress() as progress:
        made = record(asked.model, asked.device, asked.guidance, arguments.seed, progress.say)
    path = results / environment.machine(asked.device) / "walk" / "walk.json"
    save(made, path)
    print(f"{path}\nthe report of a result in {path.parents[1]} shows it")
    return 0


def record(name: str, device: str, guidance: float, seed: int, say=lambda text: None) -> Walk:
    """Draw the pictures and the signal by both samplers, and keep what they looked like on the way."""
    torch.set_num_threads(1)
    model = load_model(name, device)
    labels = torch.tensor(LABELS) % model.classes if model.classes else None
    names = tuple(data.CLASSES[i] if name.startswith("fashion-mnist") else f"class {i}" for i in labels.tolist()) \
        if labels is not None else tuple(f"sample {i}" for i in range(len(LABELS)))  # fmt: skip
    visited = trajectory.spaced(model.schedule, min(FRAMES, model.schedule.steps))
    images, signals = [], []
    closed_form = signal.model()
    of_signal = trajectory.spaced(closed_form.schedule, len(visited))
    condition = model.condition(labels) if labels is not None else None
    for way, sampler_of, fewer in (("DDPM", trajectory.ancestral, False), ("DDIM", trajectory.ddim, True)):
        say(f"{way}: pictures")
        path = sampler_of(model.schedule, visited if fewer else None, prediction=model.prediction, clip=model.clip)
        images.append(_in_bytes(_frames(way, model, path, seed, len(LABELS), visited, condition, guidance)))
        say(f"{way}: signal")
        path = sampler_of(closed_form.schedule, of_signal if fewer else None, clip=None)
        signals.append(_frames(way, closed_form, path, SIGNAL_SEED, 1, of_signal, None, 1.0))
    return Walk(
        environment.fingerprint(device), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python -m bench " + " ".join(sys.argv[1:]), name, guidance, seed, names, tuple(visited), tuple(images),
        tuple(signals),
    )  # fmt: skip


def _frames(way: str, model: Model, path: Trajectory, seed: int, count: int, visited: Sequence[int],
            condition: Condition | None, guidance: float) -> Way:  # fmt: skip
    """One sampler's walk, looked at before each visited timestep and at the end."""
    sampler = build(VARIANTS["batched-cfg"], model.network, condition, guidance)
    noise = PhiloxNoise(seed, range(count))
    timesteps, rows = path.tables(model.device)
    predictions = sampler.predictions(path)
    signal = model.schedule.alphas_cumprod[list(path.timesteps)].sqrt().tolist()
    kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def look(i: int, x: Tensor) -> None:
        if i < path.steps and path.timesteps[i] in visited:
            out = combine(predictions[i](State(x), timesteps[i : i + 1])).to(x.dtype)
            epsilon = out if model.prediction == "epsilon" else _noise_of(x, out, rows[i], signal[i])
            kept.append((x.cpu().clone(), estimate_x0(x, out, rows[i]).cpu(), epsilon.cpu()))

    x = initial_noise(model, path, noise, count)
    with torch.inference_mode(), sampler.context():
        look(0, x)
    end = run(sampler, x, path, noise, after_step=lambda i, x: look(i + 1, x)).float().cpu()
    kept.append((end, end, torch.zeros_like(end)))
    return Way(way, path.steps, *(torch.stack(frames).numpy() for frames in zip(*kept, strict=True)))


def _noise_of(x: Tensor, out: Tensor, row: Tensor, signal: float) -> Tensor:
    """The noise in x that goes with a prediction of x0 or v: x = √ᾱ x0 + √(1-ᾱ) ε (Ho et al. 2020, Eq. 4)."""
    a, b = row[0], row[1]
    return (x - signal * (a * x - b * out)) / math.sqrt(1 - signal**2)


def _in_bytes(way: Way) -> Way:
    """Pictures in [-1, 1], and noise within ±`NOISE_RANGE`, as bytes."""

    def grey(values: np.ndarray) -> np.ndarray:
        return (to_unit(torch.from_numpy(values)) * 255).round().to(torch.uint8).numpy()

    return Way(way.name, way.steps, grey(way.x), grey(way.x0), grey(way.noise / NOISE_RANGE))


def save(walk: Walk, path: Path) -> None:
    stored = {"schema": SCHEMA, **asdict(walk)}
    store.write_atomically(path, strict_json.compact(stored, "name", default=_encoded))


def load(path: Path) -> Walk:
    """A recorded walk; refuses a file of another kind."""
    try:
        stored = store.read(path)
        if stored.pop("schema") != SCHEMA:
            raise UsageError(f"{path} has another schema than {SCHEMA}, which this version reads; record it again")
        for kind in ("images", "signals"):
            stored[kind] = tuple(Way(**{**way, **{name: _decoded(way[name]) for name in ("x", "x0", "noise")}})
                                 for way in stored[kind])  # fmt: skip
        walk = Walk(**{**stored, "labels": tuple(stored["labels"]), "timesteps": tuple(stored["timesteps"])})
        if any(len(a) != len(walk.timesteps) + 1 for w in (*walk.images, *walk.signals) for a in (w.x, w.x0, w.noise)):
            raise UsageError(f"{path} holds another number of frames than of timesteps; record it again")
        return walk
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} is no whole walk ({type(error).__name__}: {error})") from None


def _encoded(array: Any) -> dict[str, Any]:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{type(array).__name__} in a walk")
    return {"shape": array.shape, "dtype": str(array.dtype), "base64": base64.b64encode(array.tobytes()).decode()}


def _decoded(stored: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(stored["base64"]), stored["dtype"]).reshape(stored["shape"])
