"""Sets of pictures for the quality table: drawn in shards of one batch size, kept by content, resumed where stopped."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.quality import content
from sampler import guidance, runtime, start
from sampler.errors import UsageError
from sampler.files import replacing, writable_folder
from sampler.generate import initial_noise, to_unit
from sampler.models import Model, load_model
from sampler.noise import PhiloxNoise
from sampler.trajectory import Trajectory
from sampler.variants import Sampler, Variant, build, run

SHARD = 20  # samples of a shard on a CPU: a multiple of ten classes, and about a minute of 1,000 steps
SHARD_CUDA = 500
BATCHED = Variant("batched-cfg", guide=guidance.batched_cfg)
FROZEN = Variant("batched-cfg-frozen", guide=guidance.batched_cfg, runtime=runtime.compiled_frozen)


@dataclass(frozen=True, eq=False)
class Point:
    """One sampler at one setting, of which a set of pictures is drawn: sample i of the seed, with label i mod 10.

    variant: what draws; it may differ from what was timed by rounding alone, which layer 1 bounds.
    """

    name: str
    path: Trajectory
    guidance: float = 3.0
    seed: int = 0
    variant: Variant = FROZEN
    model: str = "fashion-mnist"
    device: str = "cpu"

    @property
    def shard(self) -> int:
        return SHARD if self.device == "cpu" else SHARD_CUDA

    @cached_property
    def digest(self) -> str:
        """Which pictures these are: see `content`."""
        network = _model(self.model, self.device).network
        return content.of(network, self.path, self.drawn_by, self.guidance, self.seed, self.shard)

    @property
    def drawn_by(self) -> Variant:
        """The variant; without a C++ compiler, its eager counterpart."""
        if self.variant.runtime is runtime.compiled_frozen and shutil.which(os.environ.get("CXX", "g++")) is None:
            return self.eager
        return self.variant

    @property
    def eager(self) -> Variant:
        """What differs from the variant by rounding alone, and needs no compiler."""
        return replace(BATCHED, precision=self.variant.precision, guided_between=self.variant.guided_between)


@dataclass(frozen=True, eq=False)
class Drawn:
    """images: [N, C, H, W] float32 in [-1, 1], as saved in 8 bits; labels: [N]; cpu_s: what drawing them took."""

    images: Tensor
    labels: Tensor
    cpu_s: float
    digest: str

    def first(self, count: int) -> "Drawn":
        return Drawn(self.images[:count], self.labels[:count], self.cpu_s * count / len(self.labels), self.digest)


Plan = Callable[[], dict[str, Point]]  # a module's function, so that a drawing process can call it too
Turn = Callable[[], AbstractContextManager]  # likewise; entered around every shard, so that drawing can give way


def folder(point: Point, store: Path) -> Path:
    return store / point.digest[:20]


def draw(
    plan: Plan,
    wanted: Sequence[tuple[str, int]],
    store: Path,
    processes: int,
    say=lambda text: None,
    turn: Turn = nullcontext,
) -> None:
    """Draw what is missing of each (point's name, samples), rounded up to shards, in the order given."""
    points = plan()
    jobs = []
    for name, samples in wanted:
        point = points[name]
        where = writable_folder(folder(point, store))
        for shard in range(-(-samples // point.shard)):
            if not (path := where / f"{shard:04d}.npz").exists():
                jobs.append((name, shard, path))
    jobs = list(dict.fromkeys(jobs))
    if not jobs:
        say("every picture is there already")
        return
    if any(points[name].device != "cpu" for name, _, _ in jobs):
        processes = 1
    steps, done, start_s = sum(points[name].path.steps for name, _, _ in jobs), 0, time.monotonic()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(jobs)), context, initializer=begin_process) as pool:
        try:
            pending = {pool.submit(_draw_shard, plan, *job, turn): job[0] for job in jobs}
            while pending:
                finished, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    name = pending.pop(future)
                    future.result()
                    done += points[name].path.steps
                left_s = (time.monotonic() - start_s) * (steps - done) / done
                say(f"drawing: {done:,} of {steps:,} batched steps, {name}; about {left_s / 60:.0f} min left")
        except BrokenProcessPool:
            raise UsageError("a drawing process was ended from outside; the same command goes on") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def read(point: Point, samples: int, store: Path) -> Drawn | None:
    """The point's first N samples, or None where some are not drawn yet."""
    paths = [folder(point, store) / f"{shard:04d}.npz" for shard in range(-(-samples // point.shard))]
    if not paths or not all(path.exists() for path in paths):
        return None
    shards = [_shard(path) for path in paths]
    pixels = torch.from_numpy(np.concatenate([images for images, _ in shards]))
    labels = torch.arange(len(pixels)) % max(1, _model(point.model, point.device).classes)
    cpu_s = sum(seconds for _, seconds in shards)
    return Drawn(pixels.float().div(127.5).sub(1), labels, cpu_s, point.digest).first(samples)


def _shard(path: Path) -> tuple[np.ndarray, float]:
    """The pictures of a shard, and what drawing them took."""
    try:
        with np.load(path) as stored:
            return stored["images"], float(stored["cpu_s"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} holds no whole pictures ({error}); remove it, and they are drawn again") from None


def keep(point: Point, pixels: Tensor, store: Path) -> None:
    """Keep pictures [N, C, H, W] uint8 of a point that were drawn elsewhere, in whole shards, where none are kept yet;
    drawing them took no time here."""
    where = writable_folder(folder(point, store))
    for shard in range(len(pixels) // point.shard):
        if not (path := where / f"{shard:04d}.npz").exists():
            those = pixels[shard * point.shard : (shard + 1) * point.shard]
            with replacing(path) as partial, open(partial, "wb") as file:
                np.savez_compressed(file, images=those.numpy(), cpu_s=np.float64(0))


def kept(point: Point, store: Path) -> Drawn | None:
    """As many of the point's samples as are drawn without a gap, or None."""
    shards = 0
    while (folder(point, store) / f"{shards:04d}.npz").exists():
        shards += 1
    return read(point, shards * point.shard, store) if shards else None


def draw_now(point: Point, samples: int) -> tuple[Tensor, Tensor]:
    """The point's first samples and their labels, eagerly, in this process: the same up to rounding."""
    model = _model(point.model, point.device)
    return drawn_by(point.eager, model, point.path, samples, point.guidance, point.seed)


def drawn_by(
    variant: Variant, model: Model, path: Trajectory, samples: int, scale: float, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Samples of a seed, as saved in 8 bits, and their labels: all at once, by this very variant."""
    labels = torch.arange(samples) % max(1, model.classes)
    condition = model.condition(labels) if model.classes else None
    sampler = build(variant, model.network, condition, scale if condition is not None else 1.0)
    noise = PhiloxNoise(seed, range(samples))
    images = run(sampler, initial_noise(model, path, noise, samples), path, noise)
    grey = (to_unit(images.float().cpu()) * 255).round()
    return grey.div(127.5).sub(1), labels


def begin_process() -> None:
    """What a process of a pool does first."""
    start.on_ctrl_c(signal.SIG_DFL)  # end at Ctrl-C without a word; the parent speaks
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_the_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_the_parent(parent: int) -> None:
    """A parent that is killed closes no pool: without this its processes would wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _draw_shard(plan: Plan, name: str, shard: int, path: Path, turn: Turn) -> None:
    with turn():
        point = _points(plan)[name]
        model = _model(point.model, point.device)
        ids = range(shard * point.shard, (shard + 1) * point.shard)
        noise = PhiloxNoise(point.seed, ids)
        sampler = _sampler(point.model, point.device, point.drawn_by, point.guidance, point.shard)
        x = initial_noise(model, point.path, noise, point.shard)
        begun_s = time.process_time()
        images = run(sampler, x, point.path, noise)
        cpu_s = time.process_time() - begun_s
    if not bool(images.isfinite().all()):
        raise UsageError(f"the samples of {point.name!r} hold NaN or infinity")
    pixels = (to_unit(images.float().cpu()) * 255).round().to(torch.uint8)
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, images=pixels.numpy(), cpu_s=np.float64(cpu_s))


@cache
def _points(plan: Plan) -> dict[str, Point]:
    return plan()


@cache
def _model(name: str, device: str) -> Model:
    return load_model(name, device)


@cache
def _sampler(name: str, device: str, variant: Variant, scale: float, batch: int) -> Sampler:
    """Built once for all trajectories: a compiled step reads its coefficients from the table."""
    model = _model(name, device)
    condition = model.condition(torch.arange(batch) % model.classes) if model.classes else None
    return build(variant, model.network, condition, scale if condition is not None else 1.0)
