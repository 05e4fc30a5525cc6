"""The ways to compute one posterior update that are timed against each other, and the bytes each cannot avoid moving.

Noise read from memory is 4 bytes an element more than noise of the way's own: x, the output and (if read) the
noise come in, the next state goes out, all float32. With memory, the x0 estimate of the step before comes in too, and
this step's goes out. Every way is checked against the definition before it is timed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sampler import variants
from sampler.noise import NoiseKey, PhiloxNoise
from sampler.posterior import Feed, Guided, State, posterior, posterior_of
from sampler.schedule import linear
from sampler.trajectory import ancestral, dpmpp_2m_sde
from sampler.variants import Update

TIMESTEP = 500
READS_NOISE, OWN_NOISE, COPY, MEMORY = 16, 12, 8, 8  # bytes an element; memory: beside the others
SCALE = 3.0
AT_ONCE = 2**22  # elements that are checked at once


@dataclass(frozen=True, eq=False)
class Inputs:
    """One set of tensors [B, C, H, W] on a device; timing goes round many sets, so that none is in a cache."""

    x: Tensor
    out: Tensor
    z: Tensor
    destination: Tensor
    row: Tensor  # [6]
    still: Tensor  # the same row with σ = 0
    remembering: Tensor  # [7], of the solver with memory, at the same timestep
    key: NoiseKey

    @classmethod
    def draw(cls, shape: tuple[int, ...], device: torch.device, seed: int = 0) -> "Inputs":
        generator = torch.Generator(device).manual_seed(seed)
        x, out, z = (torch.randn(shape, generator=generator, device=device) for _ in range(3))
        row = ancestral(linear()).tables(device)[1][-1 - TIMESTEP].clone()
        still = row.clone()
        still[4] = 0
        remembering = dpmpp_2m_sde(linear()).tables(device)[1][-1 - TIMESTEP]
        key = PhiloxNoise(seed, range(shape[0])).key(torch.tensor([TIMESTEP], device=device), x)
        return cls(x, out, z, torch.full_like(x, torch.nan), row, still, remembering, key)

    def part(self, samples: slice) -> "Inputs":
        """Some samples alone, with the noise that is theirs."""
        key = self.key._replace(sample_ids=self.key.sample_ids[samples])
        x, out, z, destination = (t[samples] for t in (self.x, self.out, self.z, self.destination))
        return Inputs(x, out, z, destination, self.row, self.still, self.remembering, key)


Call = Callable[[Inputs], Any]


@dataclass(frozen=True)
class Way:
    """One way. make(device): a call on a set of inputs, made anew for each size; check: what that call must return."""

    name: str
    what: str
    bytes_per_element: int
    make: Callable[[torch.device], Call]
    check: Callable[[Inputs], Tensor] | None = None  # None: its noise cannot be known
    needs: str = ""  # 'cpu', 'cuda' or ''


def _noise_read(inputs: Inputs) -> Tensor:
    return posterior(inputs.x, inputs.out, inputs.z, inputs.row)


def _drawn(inputs: Inputs) -> Tensor:
    return posterior(inputs.x, inputs.out, inputs.key.draw(inputs.x), inputs.row)


def _not_noisy(inputs: Inputs) -> Tensor:
    return posterior(inputs.x, inputs.out, torch.zeros_like(inputs.x), inputs.still)


def _remembered(inputs: Inputs) -> Tensor:
    """What is read as noise elsewhere stands for the estimate of the step before."""
    return posterior_of(State(inputs.x, inputs.z), inputs.out, inputs.key.draw(inputs.x), inputs.remembering).x


def _copy(device: torch.device) -> Call:
    return lambda i: i.destination.copy_(i.x)


def _eager(device: torch.device) -> Call:
    return _noise_read


def _with_randn(apply: Callable) -> Callable[[torch.device], Call]:
    def make(device: torch.device) -> Call:
        return lambda i: apply(i.x, i.out, torch.randn_like(i.x), i.row)

    return make


def _compiled(device: torch.device) -> Call:
    torch._dynamo.reset()  # each size is compiled for itself, as a sampler's is
    call = torch.compile(posterior, fullgraph=True, dynamic=False)
    return lambda i: call(i.x, i.out, i.z, i.row)


def _compiled_with_randn(device: torch.device) -> Call:
    torch._dynamo.reset()
    call = torch.compile(
        lambda x, out, row: posterior(x, out, torch.randn_like(x), row), fullgraph=True, dynamic=False
    )  # fmt: skip
    return lambda i: call(i.x, i.out, i.row)


def _diffusers(device: torch.device) -> Call:
    from diffusers import DDPMScheduler

    theirs: Any = DDPMScheduler(1000, variance_type="fixed_small")
    generator = torch.Generator(device).manual_seed(0)
    return lambda i: theirs.step(i.out, TIMESTEP, i.x, generator=generator).prev_sample


def _reading(update: Update, *, still: bool = False) -> Callable[[torch.device], Call]:
    """An update that takes its noise, or draws it; into given memory where it can."""

    def make(device: torch.device) -> Call:
        apply = update.of_states()

        def call(i: Inputs) -> Tensor:
            destination = [State(i.destination)] if update.in_place else []
            noise, row = i.key if update.draws else i.z, i.still if still else i.row
            return apply(State(i.x), i.out, noise, row, *destination).x

        return call

    return make


def _remembering(update: Update) -> Callable[[torch.device], Call]:
    """An update that draws its noise, reads the estimate of the step before, and keeps its own."""

    def make(device: torch.device) -> Call:
        apply, estimates = update.of_states(), {}

        def call(i: Inputs) -> Tensor:
            if id(i) not in estimates:
                estimates[id(i)] = torch.empty_like(i.x)
            destination = State(i.destination, estimates[id(i)])
            return apply(State(i.x, i.z), i.out, i.key, i.remembering, destination).x

        return call

    return make


def _fed(device: torch.device) -> Call:
    """Guided halves in bfloat16, noise drawn, the next input of both halves written: all in one pass."""
    apply = variants.fused_fed_update.of_states()
    buffers: dict[int, tuple[Guided, State, State]] = {}

    def call(i: Inputs) -> Tensor:
        if id(i) not in buffers:
            half, fed = i.out.bfloat16(), Feed(2, torch.bfloat16).of(i.x)
            buffers[id(i)] = Guided(half, half, SCALE), State(i.x, input=fed), State(i.destination, input=fed.clone())
        out, state, destination = buffers[id(i)]
        return apply(state, out, i.key, i.row, destination).x

    return call


_ALL = [
    Way("copy", "a copy of the state: the roof", COPY, _copy, lambda i: i.x),
    Way("eager", "the definition in PyTorch, noise read", READS_NOISE, _eager, _noise_read),
    Way("eager + randn", "the definition, its noise from torch.randn", OWN_NOISE, _with_randn(posterior)),
    Way("compiled", "torch.compile of the definition, noise read", READS_NOISE, _compiled, _noise_read),
    Way("compiled + randn", "torch.compile of the definition with its own noise", OWN_NOISE, _compiled_with_randn),
    Way("diffusers", "DDPMScheduler.step of diffusers, its own noise", OWN_NOISE, _diffusers),
    Way("native", "one pass of C++, noise read", READS_NOISE, _reading(variants.native_update), _noise_read, "cpu"),
    Way("native, drawn", "one pass of C++, noise drawn in registers", OWN_NOISE,
        _reading(variants.native_drawn_update), _drawn, "cpu"),
    Way("native, drawn, with memory", "the same for a solver with memory", OWN_NOISE + MEMORY,
        _remembering(variants.native_drawn_update), _remembered, "cpu"),
    Way("native, no noise", "one pass of C++ where σ = 0", OWN_NOISE,
        _reading(variants.native_drawn_update, still=True), _not_noisy, "cpu"),
    Way("fused", "one Triton kernel, noise read", READS_NOISE, _reading(variants.fused_guided_update), _noise_read,
        "cuda"),
    Way("fused, drawn", "one Triton kernel, noise drawn in registers", OWN_NOISE,
        _reading(variants.fused_drawn_update), _drawn, "cuda"),
    Way("fused, drawn, with memory", "the same for a solver with memory", OWN_NOISE + MEMORY,
        _remembering(variants.fused_drawn_update), _remembered, "cuda"),
    Way("fused, no noise", "one Triton kernel where σ = 0", OWN_NOISE,
        _reading(variants.fused_drawn_update, still=True), _not_noisy, "cuda"),
    # x 4, two halves 2 each, the state 4, the input of both halves 2 each
    Way("fused, guided, drawn, fed", "one Triton kernel: bfloat16 halves combined, noise drawn, next input written",
        16, _fed, None, "cuda"),
]  # fmt: skip
WAYS = {way.name: way for way in _ALL}


def unavailable(way: Way, device: torch.device) -> str:
    """Why a way cannot run on the device, or ''."""
    if way.needs and way.needs != device.type:
        return f"needs {way.needs}"
    if way.needs == "cpu":
        from kernels import native

        return native.available() or ""
    if way.name == "diffusers":
        try:
            import diffusers  # noqa: F401
        except ImportError:
            return "diffusers is not installed"
    return ""


def verify(way: Way, call: Call, inputs: Inputs) -> None:
    """Raise where a way does not compute the definition, in any sample: a wrong kernel gets no figure.

    A part of the samples at a time, for the definition's own noise and float64 would not fit beside the largest states.
    """
    inputs.destination.fill_(torch.nan)
    result = call(inputs)
    samples = max(1, AT_ONCE * len(result) // result.numel())
    largest, error = torch.zeros((), device=result.device), torch.zeros((), device=result.device)
    for start in range(0, len(result), samples):
        part = slice(start, start + samples)
        if not bool(torch.isfinite(result[part]).all()):
            raise ArithmeticError(f"{way.name} left elements that are not finite")
        if way.check is not None:
            expected = way.check(inputs.part(part))
            largest = torch.maximum(largest, expected.abs().max())
            error = torch.maximum(error, (result[part] - expected).abs().max())
    if float(error) > 1e-5 * float(largest):
        raise ArithmeticError(f"{way.name} is {float(error):.3g} off the definition")
