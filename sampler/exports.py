"""What the package exports, in one place: `sampler.__getattr__` loads it when a name is first asked for."""

from sampler.errors import UsageError
from sampler.generate import Samples, grid, sample, to_unit
from sampler.guidance import Condition
from sampler.models import Model, load_model
from sampler.noise import GeneratorNoise, PhiloxNoise
from sampler.schedule import NoiseSchedule, cosine, from_betas, linear
from sampler.trajectory import Trajectory, ancestral, ddim, dpmpp_2m, dpmpp_2m_sde, spaced, strided
from sampler.variants import VARIANTS, Variant, variant

__all__ = [
    "VARIANTS", "Condition", "GeneratorNoise", "Model", "NoiseSchedule", "PhiloxNoise", "Samples",
    "Trajectory", "UsageError", "Variant", "ancestral", "cosine", "ddim", "dpmpp_2m", "dpmpp_2m_sde", "from_betas",
    "grid", "linear", "load_model", "sample", "spaced", "strided", "to_unit", "variant",
]  # fmt: skip
