"""A DDPM sampler whose every acceleration is a named variant of one reference: see `sampler.variants`."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "VARIANTS", "Condition", "GeneratorNoise", "Model", "NoiseSchedule", "PhiloxNoise", "Samples",
    "Trajectory", "UsageError", "Variant", "ancestral", "cosine", "ddim", "dpmpp_2m", "dpmpp_2m_sde", "from_betas",
    "grid", "linear", "load_model", "sample", "spaced", "strided", "to_unit", "variant",
]  # fmt: skip

if TYPE_CHECKING:
    from sampler.exports import (  # noqa: I001 - as above
        VARIANTS, Condition, GeneratorNoise, Model, NoiseSchedule, PhiloxNoise, Samples,
        Trajectory, UsageError, Variant, ancestral, cosine, ddim, dpmpp_2m, dpmpp_2m_sde, from_betas,
        grid, linear, load_model, sample, spaced, strided, to_unit, variant,
    )  # fmt: skip
else:

    def __getattr__(name: str):
        """Load what is exported when it is first asked for: it takes seconds, in which a command can hear Ctrl-C."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from sampler import exports

        return getattr(exports, name)
