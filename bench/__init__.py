"""Measurements of the sampler: speed, and the quality of what it draws."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.tune.stored import Fastest


def fastest(model: str = "fashion-mnist", **question: Any) -> "Fastest":
    """What to turn on for a model on this machine: see `bench.tune.stored.fastest`."""
    from bench.tune import stored  # a second, for those who ask

    return stored.fastest(model, **question)
