"""Drawing a set: the same groups of samples go through the network, whatever is missing; threads write meanwhile."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np
import torch

from sampler.generate import initial_noise
from sampler.guidance import Condition
from sampler.models import Model
from sampler.noise import PhiloxNoise
from sampler.sets.folder import Folder, Piece
from sampler.sets.formats import FORMATS, as_bytes, labels_of
from sampler.sets.identity import Identity
from sampler.trajectory import Trajectory
from sampler.variants import Sampler, Variant, build, find_first_nonfinite, run

WRITERS = 8  # threads that encode and write; most of the time each waits for the disk


@dataclass
class Source:
    """Draws groups of samples: group g is ids g·B…(g+1)·B - 1, and always drawn whole."""

    model: Model
    trajectory: Trajectory
    variant: Variant
    identity: Identity
    _sampler: Sampler | None = field(default=None, init=False)

    def group(self, number: int) -> np.ndarray:
        """The pictures of a group, a function of its number alone."""
        identity, model = self.identity, self.model
        size = identity.network_batch
        ids = range(number * size, (number + 1) * size)
        condition: Condition | None = None
        if identity.labels:
            condition = model.condition(torch.from_numpy(labels_of(ids, identity.labels)))
        if self._sampler is None:
            self._sampler = build(self.variant, model.network, condition, identity.guidance)
        self._sampler.rebind(condition)
        noise = PhiloxNoise(identity.seed, ids)
        x = initial_noise(model, self.trajectory, noise, size)
        states = run(self._sampler, x, self.trajectory, noise)
        if not bool(torch.isfinite(states).all()):
            raise find_first_nonfinite(self._sampler, x, self.trajectory, noise)
        return as_bytes(model, states)


def lots(folder: Folder, count: int, rank: int, world: int) -> Iterator[list[Piece]]:
    """The rank's share of the files, in lots that no network call and no file crosses: every world-th lot."""
    size = max(folder.identity.network_batch, folder.identity.shard)
    for start in range(rank * size, count, world * size):
        yield folder.pieces(range(start, min(start + size, count)))


def draw(source: Source, missing: list[list[Piece]], put: Callable[[Piece, np.ndarray], None]) -> None:
    """Draw the missing pieces, lot by lot, and hand each over when its last sample is there."""
    size = source.identity.network_batch
    for lot in missing:
        wanted = sorted({i // size for piece in lot for i in piece.ids})
        groups = {}
        for number in wanted:
            groups[number] = source.group(number)
            done = [p for p in lot if p.ids[-1] // size == number]
            for piece in done:
                put(piece, np.stack([groups[i // size][i % size] for i in piece.ids]))


class Writer:
    """Encodes and writes files in threads of its own, so that writing overlaps sampling.

    together: how many files are put on the disk side by side and then noted in the journal (a disk makes many durable
    in hardly more time than one). What cannot be written is raised by the next `put`, or at the end.
    """

    def __init__(self, folder: Folder, rank: int, together: int, told: Callable[[int], None]):
        self.folder, self.rank, self.together, self.told = folder, rank, together, told
        self.error: BaseException | None = None
        self._waiting: queue.Queue[tuple[Piece, np.ndarray] | None] = queue.Queue(maxsize=max(together, 2))
        self._thread = threading.Thread(target=self._work, name="writer")

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def put(self, piece: Piece, pictures: np.ndarray) -> None:
        while True:
            if self.error is not None:
                raise self.error
            try:
                return self._waiting.put((piece, pictures), timeout=0.2)
            except queue.Full:
                continue  # the disk is slower than the network: look whether the thread lives, and wait on

    def __exit__(self, kind, *_) -> None:
        """All that was put is written, also where drawing was interrupted."""
        while self._thread.is_alive():
            try:
                self._waiting.put(None, timeout=0.2)
                break
            except queue.Full:
                continue
        self._thread.join()
        if self.error is not None and kind is None:
            raise self.error

    def _work(self) -> None:
        batch: list[tuple[Piece, np.ndarray]] = []
        try:
            with ThreadPoolExecutor(WRITERS) as pool:
                while (item := self._waiting.get()) is not None:
                    batch.append(item)
                    if len(batch) >= self.together:
                        self._write(batch, pool)
                self._write(batch, pool)
        except BaseException as error:
            self.error = error

    def _write(self, batch: list[tuple[Piece, np.ndarray]], pool: ThreadPoolExecutor) -> None:
        """Put these files on the disk, and note those that are there, also where one of them could not be written."""
        tasks = [(piece, pool.submit(self._file, piece, pictures)) for piece, pictures in batch]
        batch.clear()
        wait([task for _, task in tasks])
        there = [(piece, task) for piece, task in tasks if task.exception() is None]
        if there:
            self.folder.note({piece.name: task.result() for piece, task in there}, self.rank)
            self.told(sum(len(piece.ids) for piece, _ in there))
        for _, task in tasks:
            task.result()  # raises what went wrong

    def _file(self, piece: Piece, pictures: np.ndarray) -> str:
        identity = self.folder.identity
        content = FORMATS[identity.format](pictures, labels_of(piece.ids, identity.labels))
        return self.folder.write(piece.name, content, self.rank)


class Pace:
    """Samples a second and the time left, told at most every so many seconds."""

    def __init__(
        self, total: int, say: Callable[[str], None], every_s: float, clock: Callable[[], float] = time.monotonic
    ):
        self.total, self.say, self.every_s, self.clock = total, say, every_s, clock
        self.done, self.start = 0, clock()
        self.told = self.start

    def __call__(self, samples: int) -> None:
        self.done += samples
        now = self.clock()
        if now - self.told >= self.every_s or self.done == self.total:
            self.told = now
            rate = self.done / max(now - self.start, 1e-9)
            left = round((self.total - self.done) / rate)
            self.say(f"{self.done:,} of {self.total:,}, {rate:.3g} images/s, {left // 60}:{left % 60:02d} left")
