"""A model is looked at before time is spent on it: what a sampler could not use is refused, what is odd is told."""

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sampler.errors import UsageError, in_one_line
from sampler.models import Model

BATCH = 3
OTHERS_MATTER = 1e-3  # of the answer's size: more than rounding, when another picture of the batch is exchanged


@dataclass(frozen=True)
class Facts:
    """What a harness must know of a model before it is built again in another process.

    shape: (C, H, W); timesteps: of its schedule; convolutions: 2-d ones in the network; guidable: it has labels and one
    for none; notes: oddities, in sentences; clip: bound of the x0 estimate.
    """

    name: str
    shape: tuple[int, int, int]
    timesteps: int
    prediction: str
    classes: int
    parameters: int
    convolutions: int
    guidable: bool
    notes: tuple[str, ...] = ()
    clip: float | None = 1.0

    def json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Facts":
        return cls(**{**stored, "shape": tuple(stored["shape"]), "notes": tuple(stored["notes"])})


def check(model: Model) -> Facts:
    """Call a model's network a dozen times on noise, and say what it is; UsageError where no sampler could use it."""
    network = model.network
    return Facts(
        model.name, model.shape, model.schedule.steps, model.prediction, model.classes, model.parameters,
        sum(isinstance(m, nn.Conv2d) for m in network.modules()), model.guidable, tuple(_notes(model)),
        model.clip,
    )  # fmt: skip


def tell(facts: Facts) -> None:
    """Say on the error stream what is odd about a model that was looked at."""
    for note in facts.notes:
        print(f"note: model {facts.name}: {note}", file=sys.stderr)


def call(model: Model, x: Tensor, t: Tensor, value: Tensor | None) -> Tensor:
    """The network's answer, refused in a sentence where it is none: it raises, or gives another shape or kind."""
    try:
        with torch.inference_mode():
            out = model.network(x, t, value)
    except Exception as error:
        given = "no condition" if value is None else f"a condition {list(value.shape)} {value.dtype}"
        if value is not None and value.numel() and isinstance(error, LookupError):
            given += f" of values up to {int(value.max())}"
        raise UsageError(
            f"model {model.name!r} cannot take x {list(x.shape)}, t {list(t.shape)} and {given}: {_reason(error)}"
        ) from error
    if not isinstance(out, Tensor):
        raise UsageError(f"model {model.name!r} returned {type(out).__name__}; a denoiser returns a tensor")
    if out.shape != x.shape or not out.is_floating_point():
        raise UsageError(
            f"model {model.name!r} returned {list(out.shape)} {out.dtype} for x {list(x.shape)}; "
            "a denoiser returns floating point numbers in x's shape"
        )
    if out.device != x.device:
        raise UsageError(f"model {model.name!r} returned its answer on {out.device} for x on {x.device}")
    return out


def _notes(model: Model) -> Iterator[str]:
    """Refusals are raised, oddities yielded."""
    name, device, last = model.name, model.device, model.schedule.steps - 1
    x = torch.randn(BATCH, *model.shape, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.arange(BATCH) % model.classes if model.classes else None
    condition = model.condition(labels)
    value = None if condition is None else condition.value

    def ask(x: Tensor, timestep: int, value: Tensor | None) -> Tensor:
        out = call(model, x, torch.full((len(x),), timestep, device=device), value)
        if not bool(torch.isfinite(out).all()):
            raise UsageError(f"model {name!r} returned NaN or infinity for noise at timestep {timestep}")
        return out.clone()

    before = x.clone()
    noisy, middle, clean = (ask(x, timestep, value) for timestep in (last, last // 2, 0))
    if not torch.equal(x, before):
        raise UsageError(f"model {name!r} changes the x that it is given; a denoiser leaves its input alone")
    if not torch.equal(ask(x, last, value), noisy):
        raise UsageError(
            f"model {name!r} answers the same question differently the second time: is there dropout or another "
            "source of randomness in its evaluation mode?"
        )
    others = torch.cat([x[:1], 2 * x[1:] + 1])
    moved = (ask(others, last, value)[0] - noisy[0]).abs().max()
    if moved > OTHERS_MATTER * noisy.abs().max():
        raise UsageError(
            f"model {name!r} answers differently for one picture when the others of its batch change: is there a "
            "normalisation over the batch?"
        )
    if not bool(noisy.any()):
        yield "its answer is zero everywhere: are its weights loaded?"
    if last and torch.equal(noisy, clean) and torch.equal(noisy, middle):
        yield "its answer does not depend on the timestep"
    if condition is None or value is None:
        return
    top = ask(x, last, torch.full_like(value, model.classes - 1))
    null = ask(x, last, condition.null)  # refused where it does not know the null label
    if model.guidable and torch.equal(top, null):
        yield "its answer is the same with a label and without: guidance costs a second call and changes nothing"
    elif model.classes > 1 and torch.equal(top, ask(x, last, torch.zeros_like(value))):
        yield f"labels 0 and {model.classes - 1} get the same answer from it"


def _reason(error: Exception) -> str:
    kinds = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError)
    if isinstance(error, kinds):
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return in_one_line(error)
