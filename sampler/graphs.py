"""Steps as CUDA graphs: one or several captured, then replayed; a counter on the device finds row, time and noise.

The loop copies nothing from the host and launches nothing but the graph.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from sampler.errors import UsageError
from sampler.noise import NoiseKey
from sampler.posterior import Guided, State
from sampler.runtime import AfterStep, Leg, Step, Walk

Replay = Callable[[], None]
Capture = Callable[[Callable[[], None], Tensor], Replay]  # (work, a tensor on the device) -> replay of that work
WARM_UPS = 3  # calls before a capture: lazy initialisation, autotuning and compiling are not to be captured
SMALLEST_TABLE = 1024  # rows of the table on the device; a longer leg gets a larger one


def graphed(step: Step) -> Walk:
    """One step captured as a CUDA graph and replayed. Needs CUDA, and an update that draws its own noise."""
    return Graphed(step, 1, cuda_capture())


def graphed_over(steps: int) -> Callable[[Step], Walk]:
    """`steps` steps in one graph: fewer replays; what is left of a leg is taken first, step by step."""

    def runtime(step: Step) -> Walk:
        return Graphed(step, steps, cuda_capture())

    return runtime


def graphed_compiled(step: Step) -> Walk:
    """One step captured whose prediction is compiled by Inductor; our update stays a kernel of its own."""
    predict = step.predict

    def of_input(x: Tensor, t: Tensor) -> Tensor | Guided:
        return predict.of_input(x, t)

    of_input.__code__ = of_input.__code__.replace()  # see `runtime._function`
    fast = torch.compile(of_input, dynamic=False, fullgraph=True)
    return Graphed(Step(type(predict)(fast, predict.copies), step.apply, step.in_place), 1, cuda_capture())


@dataclass(frozen=True, eq=False)
class _Buffers:
    """What the captured work reads and writes; filled anew before each leg."""

    state: State
    ts: Tensor  # [rows] int64
    rows: Tensor  # [rows, 6 or 7] float32
    counter: Tensor  # [1] int64: the next row
    key: NoiseKey  # its step is the timestep of the row

    def fill(self, state: State, leg: Leg, key: NoiseKey) -> None:
        """From device memory alone, where the key came from the device (`sampler.variants` sees to that)."""
        for buffer, value in zip(self.state.parts, state.parts, strict=True):
            buffer.copy_(value)
        self.ts[: len(leg.ts)].copy_(leg.ts)
        self.rows[: len(leg.ts)].copy_(leg.rows)
        self.counter.zero_()
        key = key.on(self.counter.device)
        assert isinstance(self.key.seed, Tensor)
        assert isinstance(key.seed, Tensor)
        self.key.seed.copy_(key.seed)
        self.key.sample_ids.copy_(key.sample_ids)


class Graphed:
    """A walk by replays. `replays` counts them, `captures` the graphs made, one for each shape and length, and
    `captured_steps` the steps in them.

    Each Graphed belongs to one step, hence to one variant, condition and guidance scale, which are part of
    what was captured; shape, dtype and device select among its graphs. after(i, x) is told of the last step
    of each replay, and its x is overwritten by the next.
    """

    def __init__(self, step: Step, steps: int, capture: Capture):
        if steps < 1:
            raise UsageError(f"a graph over {steps} steps cannot be; it takes at least 1")
        self.step, self.steps, self.capture = step, steps, capture
        self.replays = self.captures = self.captured_steps = 0
        self._buffers: dict[tuple, _Buffers] = {}
        self._graphs: dict[tuple, Replay] = {}

    def __call__(self, state: State, leg: Leg, after: AfterStep) -> State:
        key = leg.noise(leg.timesteps[0], state.x)
        if not isinstance(key, NoiseKey):
            raise UsageError("a captured step draws its own noise; give it an update that does")
        n = len(leg.timesteps)
        room = max(SMALLEST_TABLE, 1 << max(n, (WARM_UPS + 1) * self.steps).bit_length())
        where = (room, *((part.shape, part.dtype, part.device) for part in state.parts), leg.rows.shape[1])
        single, several = n % self.steps, n // self.steps
        lengths = [1] * single + [self.steps] * several
        if where not in self._buffers:
            self._buffers[where] = _empty(state, room, leg.rows.shape[1], key)
        buffers = self._buffers[where]
        replay = {length: self._graph(buffers, length, where, state, leg, key) for length in set(lengths)}
        buffers.fill(state, leg, key)
        position = leg.first - 1
        for length in lengths:
            replay[length]()
            self.replays += 1
            position += length
            after(position, buffers.state.x)
        return buffers.state.each(Tensor.clone)

    def _graph(self, buffers: _Buffers, length: int, where: tuple, state: State, leg: Leg, key: NoiseKey) -> Replay:
        if (length, where) not in self._graphs:
            buffers.fill(state, leg, key)  # so that the warm-up works on real numbers

            def work() -> None:
                for _ in range(length):
                    t = buffers.ts.index_select(0, buffers.counter)
                    row = buffers.rows.index_select(0, buffers.counter)[0]
                    self.step.advance(buffers.state, buffers.key._replace(step=t), t, row)
                    buffers.counter.add_(1)

            self._graphs[length, where] = self.capture(work, buffers.state.x)
            self.captures += 1
            self.captured_steps += length
        return self._graphs[length, where]


def _empty(state: State, room: int, columns: int, key: NoiseKey) -> _Buffers:
    device = state.x.device
    return _Buffers(
        state.empty_like(),
        torch.zeros(room, dtype=torch.int64, device=device),
        torch.zeros(room, columns, device=device),
        torch.zeros(1, dtype=torch.int64, device=device),
        NoiseKey(torch.zeros(1, dtype=torch.int64, device=device), torch.zeros_like(key.sample_ids), 0),
    )


def cuda_capture() -> Capture:
    """A capture whose graphs share one private pool, for they never run at the same time, and one warm-up stream.

    The allocator keeps apart what each stream has freed: a new stream for each warm-up would hold memory of its own.
    """
    pool: list = []
    sides: dict[torch.device, torch.cuda.Stream] = {}

    def capture(work: Callable[[], None], x: Tensor) -> Replay:
        if not x.is_cuda:
            raise UsageError(f"CUDA graphs need a CUDA device, but the sampler runs on {x.device}")
        if not pool:
            pool.append(torch.cuda.graph_pool_handle())
        with torch.cuda.device(x.device), _no_cached_casts():
            if x.device not in sides:
                sides[x.device] = torch.cuda.Stream()
            side = sides[x.device]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # warm-up off the main stream, as a capture asks for
                for _ in range(WARM_UPS):
                    work()
            torch.cuda.current_stream().wait_stream(side)
            release_workspaces()  # of the side stream, which has no more to do
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=pool[0]):
                    work()
            except RuntimeError as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise UsageError(
                    f"the step cannot be captured in a CUDA graph: {reason.rstrip('.')}; a captured step must not "
                    "wait for the device, read a value from it, or copy from the host"
                ) from error
            release_workspaces()  # of the capture: the next one takes it from the pool, and nobody runs beside it
        return lambda: graph.replay()  # looked up at each call, so that what counts replays sees them

    return capture


def release_workspaces() -> None:
    """Give the memory that cuBLAS keeps for each stream back to the allocator; the next product takes its own anew.

    Some 32 MiB a stream on the newest devices; PyTorch's own graphs are captured in the same way.
    """
    torch._C._cuda_clearCublasWorkspaces()


@contextmanager
def _no_cached_casts():
    """Autocast would keep weights cast during the capture, and free them when the loop ends."""
    before = torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
