"""`sample`: from a model and a request to pictures, in batches of bounded memory, with progress."""

import math
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sampler import model_check
from sampler.errors import UsageError
from sampler.guidance import Condition
from sampler.models import Model
from sampler.noise import GeneratorNoise, Noise, PhiloxNoise
from sampler.posterior import State, estimate_x0
from sampler.trajectory import PREDICTIONS, Trajectory
from sampler.variants import REFERENCE, Sampler, Variant, build, check_guided, find_first_nonfinite, run


@dataclass(frozen=True, eq=False)
class Samples:
    """What a request gave.

    images: [N, C, H, W] float32 in about [-1, 1], on the CPU.
    kept: for each timestep asked for, the state x_t and the x0 estimate made from it, [N, C, H, W] each.
    """

    images: Tensor
    kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


def sample(
    model: Model,
    trajectory: Trajectory,
    *,
    count: int | None = None,
    labels: Tensor | None = None,
    condition: Condition | None = None,
    guidance: float = 1.0,
    variant: Variant = REFERENCE,
    noise: Noise | None = None,
    seed: int = 0,
    batch_size: int = 64,
    keep: Collection[int] = (),
    progress: bool = True,
) -> Samples:
    """Draw samples from a model.

    count: how many; given by labels or condition where they are given.
    labels: [count] integers, or condition: any tensor with its null counterpart.
    guidance: classifier-free guidance scale; 1 is none.
    noise: the source (default: Philox, keyed by `seed` and the sample's number).
    batch_size: samples at once on the device; finished batches are moved off it.
    keep: timesteps at which to keep x_t and the x0 estimate (one more network call each).
    progress: show a progress line on the terminal's error stream.
    """
    if labels is not None:
        if condition is not None:
            raise UsageError("give labels or a condition, not both")
        condition = model.condition(torch.as_tensor(labels))
    if condition is not None:
        if count not in (None, len(condition.value)):
            raise UsageError(f"count = {count}, but {len(condition.value)} labels or conditions were given")
        count = len(condition.value)
    if count is None or count < 1:
        raise UsageError(f"count = {count}; at least 1 sample must be asked for")
    if batch_size < 1:
        raise UsageError(f"batch_size = {batch_size}; at least 1 is needed")
    if not math.isfinite(guidance):
        raise UsageError(f"guidance = {guidance} is not a finite number")
    if guidance != 1 and model.classes and model.null_label is None and labels is not None:
        raise UsageError(
            f"guidance = {guidance:g}, but model {model.name!r} has no label for 'no label'; without one it is 1"
        )
    if trajectory.train_steps != model.schedule.steps:
        raise UsageError(
            f"the trajectory was made for a schedule of {trajectory.train_steps} timesteps, "
            f"but model {model.name!r} was trained on {model.schedule.steps}"
        )
    _check_rows(model, trajectory)
    if variant.needs and variant.needs != model.device.type:
        raise UsageError(
            f"variant {variant.name!r} needs a {variant.needs} device, but model {model.name!r} is on "
            f"{str(model.device)!r}"
        )
    unvisited = set(keep) - set(trajectory.timesteps)
    if unvisited:
        raise UsageError(f"timestep {min(unvisited)} was asked to be kept, but the trajectory does not visit it")
    check_guided(variant, trajectory, guidance)
    check_model(model, condition)
    noise = PhiloxNoise(seed, range(count)) if noise is None else noise

    parts: list[Samples] = []
    sampler: Sampler | None = None
    with _progress(progress, trajectory.steps * -(-count // batch_size)) as advance:
        for start in range(0, count, batch_size):
            stop = min(start + batch_size, count)
            part = None if condition is None else condition.select(start, stop).to(model.device)
            if sampler is None or stop - start < batch_size:  # what was compiled or captured serves every whole batch
                sampler = build(variant, model.network, part, guidance)
            sampler.rebind(part)
            parts.append(_batch(sampler, model, trajectory, stop - start, noise.select(start, stop), keep, advance))
    return Samples(
        torch.cat([part.images for part in parts]),
        {
            t: (torch.cat([p.kept[t][0] for p in parts]), torch.cat([p.kept[t][1] for p in parts]))
            for t in trajectory.timesteps
            if t in set(keep)
        },
    )


def initial_noise(model: Model, trajectory: Trajectory, noise: Noise, batch: int) -> Tensor:
    """x_T [batch, C, H, W] float32 on the model's device, drawn as the noise of timestep T."""
    return noise.draw(trajectory.train_steps, torch.empty(batch, *model.shape, device=model.device))


def check_model(model: Model, condition: Condition | None) -> None:
    """Call the network once on noise and refuse what a sampler could not use."""
    b = 1 if condition is None else min(1, len(condition.value))
    value = None if condition is None else condition.value[:b].to(model.device)
    x = torch.zeros(b, *model.shape, device=model.device)
    model_check.call(model, x, torch.full((b,), model.schedule.steps - 1, device=model.device), value)


def _check_rows(model: Model, trajectory: Trajectory) -> None:
    """Refuse a trajectory whose x0 = a·x - b·out is not that of the model's prediction and schedule."""
    alphas_cumprod = model.schedule.alphas_cumprod[list(trajectory.timesteps)]
    a, b = PREDICTIONS[model.prediction](alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt())
    if not torch.allclose(trajectory.rows[:, :2], torch.stack([a, b], dim=1), rtol=1e-6, atol=1e-9):
        raise UsageError(
            f"the trajectory was not made for model {model.name!r}, which predicts {model.prediction}: give "
            f"{trajectory.name} this model's schedule and prediction={model.prediction!r}"
        )


def to_unit(images: Tensor) -> Tensor:
    """Images in [-1, 1] to [0, 1], clipped."""
    return ((images + 1) / 2).clamp(0, 1)


def grid(images: Tensor, columns: int, padding: int = 2) -> Tensor:
    """Images [N, C, H, W] in [-1, 1] as one picture [C, H', W'] in [0, 1], row by row."""
    if columns < 1:
        raise UsageError(f"columns = {columns}; at least 1 is needed")
    n, c, h, w = images.shape
    rows = -(-n // columns)
    picture = torch.ones(c, rows * (h + padding) + padding, columns * (w + padding) + padding)
    for i, image in enumerate(to_unit(images.float().cpu())):
        top = padding + (i // columns) * (h + padding)
        left = padding + (i % columns) * (w + padding)
        picture[:, top : top + h, left : left + w] = image
    return picture


def _batch(sampler: Sampler, model: Model, trajectory: Trajectory, b: int, noise: Noise, keep, advance) -> Samples:
    rewind = _rewinder(noise, model.device)
    x = initial_noise(model, trajectory, noise, b)
    kept: dict[int, tuple[Tensor, Tensor]] = {}
    timesteps, rows = trajectory.tables(model.device)
    predictions = sampler.predictions(trajectory)

    def look(i: int, x: Tensor) -> None:
        """Before step i: keep the state and what the network makes of it."""
        t = trajectory.timesteps[i]
        if t in keep:
            x0 = estimate_x0(x, predictions[i](State(x), timesteps[i : i + 1]), rows[i])
            kept[t] = (x.to("cpu", torch.float32, copy=True), x0.float().cpu())  # a step may overwrite the state

    def after(i: int, x: Tensor) -> None:
        advance()
        if keep and i + 1 < trajectory.steps:
            look(i + 1, x)

    if keep:
        with torch.inference_mode(), sampler.context():
            look(0, x)
    out = run(sampler, x, trajectory, noise, after_step=after)
    if not bool(torch.isfinite(out).all()):
        rewind()
        x = initial_noise(model, trajectory, noise, b)
        raise find_first_nonfinite(sampler, x, trajectory, noise)
    return Samples(out.float().cpu(), kept)


def _rewinder(noise: Noise, device: torch.device) -> Callable[[], object]:
    """A function that puts the noise source back to where it is now."""
    if not isinstance(noise, GeneratorNoise):
        return lambda: None
    generator = noise.generator
    if generator is None and device.type == "cuda":
        generator = torch.cuda.default_generators[device.index or 0]
    if generator is None:
        generator = torch.default_generator
    state = generator.get_state()
    return lambda: generator.set_state(state)


def _progress(shown: bool, total: int):
    if not shown:
        return nullcontext(lambda: None)
    return _Bar(total)


class _Bar:
    """A progress line on the error stream: steps done, rate, time left."""

    def __init__(self, total: int):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("sampling"), BarColumn(), MofNCompleteColumn(), TextColumn("steps,"),
            TimeRemainingColumn(), TextColumn("left"), console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self.total = total

    def __enter__(self):
        self.bar.__enter__()
        task = self.bar.add_task("sampling", total=self.total)
        return lambda: self.bar.advance(task)

    def __exit__(self, *exception):
        return self.bar.__exit__(*exception)
