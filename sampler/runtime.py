"""How a step is executed: eagerly, compiled by Inductor, or as a replayed CUDA graph.

A runtime takes a step and returns a step of the same signature, step(x, noise, t, row) -> x_next.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sampler.errors import UsageError

Step = Callable[..., Tensor]  # step(x [B, C, H, W], noise or its key, t [1], row [6]) -> x_next
Runtime = Callable[[Step], Step]


def eager(step: Step) -> Step:
    """The step as it is."""
    return step


def compiled(step: Step) -> Step:
    """`torch.compile` of the whole step; with CUDA graphs (`reduce-overhead`) on a GPU.

    The output of a replayed graph is overwritten by the next replay, and a sampler feeds its output
    back in, so there it is cloned (PyTorch #152887); the clone is part of the timed step.
    """
    fast = torch.compile(step, mode="reduce-overhead", dynamic=False, fullgraph=True)
    plain = torch.compile(step, dynamic=False, fullgraph=True)

    def run(x: Tensor, noise: Tensor, t: Tensor, row: Tensor) -> Tensor:
        if x.is_cuda:
            return fast(x, noise, t, row).clone()
        return plain(x, noise, t, row)

    return run


def compiled_frozen(step: Step) -> Step:
    """`compiled`, with weights as constants that Inductor may fold and pack ('freezing').

    The weights of the moment of compilation are used from then on. Both settings are needed: the option
    alone comes too late for the tracer, and no weight is frozen; without it, `compiled` and this would be
    one to the tracer's cache, and whichever ran first would run for both.
    """
    import torch._inductor.config as inductor  # two seconds, for those who compile

    options: dict[str, str | int | bool | Callable] = {"freezing": True}
    frozen = torch.compile(step, options=options, dynamic=False, fullgraph=True)

    def run(x: Tensor, noise: Tensor, t: Tensor, row: Tensor) -> Tensor:
        before, inductor.freezing = inductor.freezing, True
        try:
            return frozen(x, noise, t, row)
        finally:
            inductor.freezing = before

    return run


def graphed(step: Step) -> Step:
    """One step captured as a CUDA graph and replayed; inputs are copied into static buffers.

    Each combination of shape and dtype gets its own graph. Needs CUDA.
    """
    graphs: dict[tuple, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = {}

    def run(x: Tensor, noise: Tensor, t: Tensor, row: Tensor) -> Tensor:
        inputs = [x, noise, t, row]
        if not x.is_cuda:
            raise UsageError(f"CUDA graphs need a CUDA device, but the sampler runs on {x.device}")
        key = tuple((v.shape, v.dtype, v.stride(), v.device) for v in inputs)
        if key not in graphs:
            graphs[key] = _capture(step, inputs)
        graph, buffers, output = graphs[key]
        for buffer, value in zip(buffers, inputs, strict=True):
            buffer.copy_(value)
        graph.replay()
        return output.clone()

    return run


def _capture(step: Step, inputs: list[Tensor]) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
    buffers = [value.clone() for value in inputs]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # warm-up off the main stream, as capture requires
        for _ in range(3):
            step(*buffers)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = step(*buffers)
    return graph, buffers, output
