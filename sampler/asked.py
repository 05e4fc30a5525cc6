"""What commands are asked for, in words: a sampler, its steps, labels and guidance, fitted to a model."""

import math
import re
from collections.abc import Callable
from pathlib import Path

from sampler import data, trajectory
from sampler.errors import UsageError, unknown
from sampler.models import RECIPES, Model
from sampler.own_models import HOW

SAMPLERS: dict[str, Callable[..., trajectory.Trajectory]] = {
    "ancestral": trajectory.ancestral,
    "ddim": trajectory.ddim,
    "strided": trajectory.strided,
    "dpm++2m": trajectory.dpmpp_2m,
    "dpm++2m-sde": trajectory.dpmpp_2m_sde,
}


def add_drawing_options(add: Callable[..., object]) -> None:
    """The options that decide a picture, for every command that draws; add: a parser's `add_argument`."""
    given = "default: %(default)s"
    add("--seed", type=int, default=0, help=f"same seed, same pictures ({given})")
    add("--guidance", type=float, metavar="S", help="scale of guidance; 1 is none (default: 3 where there are labels)")
    add("--steps", type=int, metavar="N", help="sampler steps (default: each of the model's timesteps)")
    add_path_options(add)
    add("--variant", default="batched-cfg", help=f"one that `variants` lists ({given})")
    add("--model", default="fashion-mnist", help=f"one that `models` lists, or your own: {HOW} ({given})")
    add("--weights", type=Path, metavar="FILE", help="your own weights for a shipped model, from `train`")


def add_path_options(add: Callable[..., object]) -> None:
    """The options that decide what `path_of` makes, but for the number of steps."""
    given = "default: %(default)s"
    add("--sampler", default="ancestral", help=f"{', '.join(SAMPLERS)} ({given})")
    spacings = ", ".join(trajectory.SPACINGS)
    add("--spacing", default="trailing", help=f"of the timesteps: {spacings} ({given}; dpm++2m is best with logsnr)")


def check_path(sampler: str, spacing: str) -> None:
    """Refuse a name that there is not, before anything is loaded."""
    if sampler not in SAMPLERS:
        raise unknown("sampler", sampler, SAMPLERS)
    if spacing not in trajectory.SPACINGS:
        raise unknown("spacing", spacing, trajectory.SPACINGS)


def path_of(model: Model, sampler: str, steps: int | None, spacing: str = "trailing") -> trajectory.Trajectory:
    """The trajectory of a sampler by its name; steps: how many, None for each of the model's timesteps."""
    check_path(sampler, spacing)
    timesteps = trajectory.spaced(model.schedule, steps or model.schedule.steps, spacing)
    return SAMPLERS[sampler](model.schedule, timesteps, prediction=model.prediction, clip=model.clip)


def class_names(model: str) -> tuple[str, ...]:
    """The names of a shipped model's labels, where they have any."""
    return data.CLASSES if model in RECIPES and model.startswith("fashion-mnist") else ()


def labels_of(model: Model, text: str | None, names: tuple[str, ...]) -> list[int]:
    """The labels asked for, all where nothing is said, none where the model takes none."""
    if text is None:
        return list(range(min(model.classes, 10)))
    return parse_labels(text, model.classes, names)


def fitting_guidance(model: Model, asked: float | None) -> float:
    """The scale asked for, or the default: 3, and 1 (none) where the model cannot be guided."""
    if asked is None:
        return 3.0 if model.guidable else 1.0
    if not math.isfinite(asked):
        raise UsageError(f"--guidance {asked} is not a finite number")
    if asked != 1 and not model.guidable:
        lacks = "takes no labels" if not model.classes else "has no label for 'no label'"
        raise UsageError(f"--guidance {asked:g} needs labels to guide by, but model {model.name!r} {lacks}; say 1")
    return asked


def parse_labels(text: str, classes: int, names: tuple[str, ...] = ()) -> list[int]:
    """Labels from '0-9', '0,3,5' or class names, in the order given; each must be a class."""
    if not classes:
        raise UsageError("this model takes no labels")
    by_name = {name.lower().replace(" ", "-"): label for label, name in enumerate(names)}
    labels: list[int] = []
    for part in (p.strip() for p in text.split(",")):
        if match := re.fullmatch(r"(\d+)-(\d+)", part):
            first, last = map(int, match.groups())
            if first > last:
                raise UsageError(f"--labels {part} runs backwards; write {last}-{first}")
            labels += range(first, max(first, min(last, classes)) + 1)  # one too many is enough to be refused
        elif re.fullmatch(r"-?\d+", part):
            labels.append(int(part))
        elif part.lower().replace(" ", "-") in by_name:
            labels.append(by_name[part.lower().replace(" ", "-")])
        elif names:
            raise unknown("class", part, names)
        else:
            raise UsageError(f"--labels {part!r} is not a number or a range such as 0-{classes - 1}")
        if not 0 <= labels[-1] < classes:
            raise UsageError(f"--labels {part} is outside 0-{classes - 1}, the classes of the model")
    return labels


def at_least(least: int, **values: int | None) -> None:
    for name, value in values.items():
        if value is not None and value < least:
            raise UsageError(f"--{name.replace('_', '-')} {value} is below {least}")


def at_most(most: int, why: str, **values: int) -> None:
    """UsageError for the first value above the most, with the reason."""
    for name, value in values.items():
        if value > most:
            raise UsageError(f"--{name.replace('_', '-')} {value} is more than {most}, {why}")
