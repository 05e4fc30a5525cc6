"""The samples a model card is about, drawn in shards by several processes and resumed where they stopped."""

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sampler import guidance, runtime, start, trajectory
from sampler.card import sha256
from sampler.errors import UsageError
from sampler.files import replacing, writable_folder
from sampler.generate import initial_noise, to_unit
from sampler.models import Model, load_model
from sampler.noise import PhiloxNoise
from sampler.variants import Sampler, Variant, build, run


@dataclass(frozen=True)
class Request:
    """What decides the samples: `per_class` of each class, from sample ids 0, 1, … of one seed.

    Every shard of `batch` samples has the same labels, so that a compiled step serves them all.
    """

    model: str
    weights: Path
    per_class: int
    guidance: float
    steps: int = 1000
    seed: int = 0
    batch: int = 100
    classes: int = 10

    def __post_init__(self):
        each = self.batch // self.classes
        if self.batch < 1 or self.batch % self.classes or self.per_class < 1 or self.per_class % each:
            raise UsageError(
                f"{self.per_class} samples a class in batches of {self.batch}: a batch must be a multiple of "
                f"{self.classes} classes, and the samples a class a multiple of a batch's {each}"
            )

    @property
    def labels(self) -> Tensor:
        """Labels of one shard, [batch]."""
        return torch.arange(self.classes).repeat_interleave(self.batch // self.classes)

    @property
    def shards(self) -> int:
        return self.per_class * self.classes // self.batch

    @property
    def variant(self) -> str:
        return fastest_variant().name

    @property
    def folder(self) -> str:
        """A name that no other request has (whose shards would be other pictures)."""
        return (
            f"{self.model}-{_digest(self.weights)[:12]}-{self.variant}-steps{self.steps}-seed{self.seed}"
            f"-batch{self.batch}-guidance{self.guidance:g}"
        )


def fastest_variant() -> Variant:
    """The fastest variant here that differs by rounding alone: compiled where there is a C++ compiler."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        return Variant("batched-cfg", guide=guidance.batched_cfg)
    return Variant("batched-cfg-frozen", guide=guidance.batched_cfg, runtime=runtime.compiled_frozen)


def draw(
    requests: Sequence[Request], cache_folder: Path, processes: int, report: Callable[[str], None] = print
) -> list[tuple[Tensor, Tensor]]:
    """For each request its samples: images [N, 1, 28, 28] in [-1, 1], as saved in 8 bits, and labels [N]."""
    paths = {
        (request, shard): writable_folder(cache_folder / request.folder) / f"shard-{shard:03d}.npz"
        for request in requests
        for shard in range(request.shards)
    }
    missing = {key: path for key, path in paths.items() if not path.exists()}
    if len(missing) < len(paths):
        report(f"{len(paths) - len(missing)} of {len(paths)} shards are there already")
    if missing:
        _draw_missing(missing, processes, report)
    return [_read([paths[request, shard] for shard in range(request.shards)]) for request in requests]


def _draw_missing(missing: dict[tuple[Request, int], Path], processes: int, report) -> None:
    # the dear ones (two networks a step) first, so that the processes finish together
    order = sorted(missing, key=lambda key: (key[0].guidance == 1, key[1]))
    context = multiprocessing.get_context("spawn")
    start_s, done = time.monotonic(), 0
    with ProcessPoolExecutor(min(processes, len(order)), context, initializer=_start_worker) as pool:
        try:
            pending = {pool.submit(_draw_shard, *key, missing[key]) for key in order}
            while pending:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                done += len(finished)
                minutes = (time.monotonic() - start_s) / 60
                report(f"shard {done} of {len(order)} after {minutes:.1f} min; finished shards are kept")
        except BrokenProcessPool:
            raise UsageError("a drawing process was ended from outside; the same command goes on") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start_worker() -> None:
    start.on_ctrl_c(signal.SIG_DFL)  # end at Ctrl-C without a word; the parent speaks
    torch.set_num_threads(1)


def _draw_shard(request: Request, shard: int, path: Path) -> None:
    model, way, sampler = _built(request)
    ids = range(shard * request.batch, (shard + 1) * request.batch)
    noise = PhiloxNoise(request.seed, ids)
    images = run(sampler, initial_noise(model, way, noise, request.batch), way, noise)
    if not bool(images.isfinite().all()):
        raise UsageError(f"samples of {request.weights} at guidance {request.guidance:g} are not finite")
    pixels = (to_unit(images) * 255).round().to(torch.uint8)
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, images=pixels.numpy(), labels=request.labels.numpy())


@cache
def _built(request: Request) -> tuple[Model, trajectory.Trajectory, Sampler]:
    model = load_model(request.model, weights=request.weights)
    way = trajectory.ancestral(model.schedule, trajectory.spaced(model.schedule, request.steps))
    condition = model.condition(request.labels)
    return model, way, build(fastest_variant(), model.network, condition, request.guidance)


@cache
def _digest(path: Path) -> str:
    return sha256(path)


def _read(paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
    shards = [np.load(path) for path in paths]
    pixels = torch.from_numpy(np.concatenate([shard["images"] for shard in shards]))
    labels = torch.from_numpy(np.concatenate([shard["labels"] for shard in shards]))
    return pixels.float().div(127.5).sub(1), labels
