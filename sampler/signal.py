"""A denoiser known in closed form: where the data are a mixture of Gaussians, nothing has to be trained.

It shows what a sampler does on signals that one can look at, and it is an oracle: samples drawn with
it have known shares and moments, with and without guidance.
"""

import math
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from sampler import schedule as schedules
from sampler import trajectory
from sampler.errors import UsageError, unknown
from sampler.figures import save_denoising
from sampler.generate import Samples, sample
from sampler.models import Model
from sampler.schedule import NoiseSchedule
from sampler.trajectory import PREDICTIONS

STD = 0.03  # of every component around its signal, where no other is given
# Timesteps at which the demonstration is looked at, and what is to be seen there
SHOWN = {
    999: "early: nothing but noise;\nestimate = average of all",
    700: "early: still near\nthat average",
    550: "middle: some signals\nare ruled out",
    400: "middle: one is\nleft, or nearly",
    200: "late: which one is settled,\nonly noise goes",
    50: "late: what is left\nis detail",
}


class GaussianMixtureDenoiser(nn.Module):
    """The best possible denoiser for x0 ~ Σ_k w_k N(μ_k, s_k² I) in R^n, as a sampler's network.

    means: [K, n]; stds: [K], or one number for all; weights: [K] positive, equal by default.
    dtype: of the arithmetic inside; the answer comes back in x's.

    With x_t = √ᾱ x0 + √(1-ᾱ) ε, v_k = ᾱ s_k² + 1 - ᾱ and δ_k = x_t - √ᾱ μ_k,

        r_k = softmax_k(log w_k - n/2 log v_k - |δ_k|² / 2v_k)    Bishop (2006), Eq. 9.13
        E[x0 | x_t] = Σ_k r_k (μ_k + √ᾱ s_k² / v_k δ_k)            Bishop (2006), Eq. 2.116
        E[ε | x_t]  = Σ_k r_k √(1-ᾱ) / v_k δ_k

    the last of which is -√(1-ᾱ) ∇ log p(x_t), as Tweedie's formula has it (Efron 2011). A condition k
    leaves component k alone in the mixture; the null label K leaves them all.
    """

    signal: Tensor
    noise_variance: Tensor
    stds: Tensor
    log_weights: Tensor

    def __init__(
        self,
        means: Tensor,
        stds: Tensor | float,
        weights: Tensor | None,
        schedule: NoiseSchedule,
        prediction: str = "epsilon",
        dtype: torch.dtype = torch.float64,
    ):
        super().__init__()
        if prediction not in PREDICTIONS:
            raise unknown("prediction", prediction, PREDICTIONS)
        if means.dim() != 2:
            raise UsageError(f"means must be [components, numbers], got {list(means.shape)}")
        k = len(means)
        stds = torch.as_tensor(stds, dtype=torch.float64).expand(k)
        weights = torch.ones(k) if weights is None else torch.as_tensor(weights)
        if len(weights) != k or not bool((weights > 0).all()) or not bool((stds >= 0).all()):
            raise UsageError(f"a mixture of {k} needs {k} positive weights, and stds that are not negative")
        self.prediction = prediction
        self.null_label = k
        self.means = nn.Parameter(means.to(dtype), requires_grad=False)
        # √ᾱ and 1 - ᾱ are kept apart: near t = 0 the second cannot be had from a float32 of the first
        for name, value in (
            ("signal", schedule.alphas_cumprod.sqrt()),
            ("noise_variance", 1 - schedule.alphas_cumprod),
            ("stds", stds),
            ("log_weights", (weights.double() / weights.double().sum()).log()),
        ):
            self.register_buffer(name, value.to(dtype).clone())

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """x [B, C, H, W] with C·H·W = n, t [B], condition [B] labels or None; the prediction in x's shape."""
        epsilon, x0 = self.expectations(x, t, condition)
        if self.prediction == "epsilon":
            out = epsilon
        elif self.prediction == "x0":
            out = x0
        else:
            out = self.signal[t, None] * epsilon - self.noise_variance[t, None].sqrt() * x0
        return out.to(x.dtype).reshape(x.shape)

    def expectations(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """E[ε | x_t] and E[x0 | x_t], [B, n] each."""
        r, pull = self._components(x, t, condition)
        signal, variance = self.signal[t, None], self.noise_variance[t, None]  # [B, 1]
        shrunk = r * signal * self.stds**2  # [B, K]
        x0 = r @ self.means + torch.einsum("bk,bkn->bn", shrunk, pull)
        return variance.sqrt() * torch.einsum("bk,bkn->bn", r, pull), x0

    def responsibilities(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """The probability of each component given x_t, [B, K]."""
        return self._components(x, t, condition)[0]

    def _components(self, x: Tensor, t: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Responsibilities r_k [B, K] and δ_k / v_k [B, K, n]."""
        k, n = self.means.shape
        x = x.flatten(1).to(self.means.dtype)
        delta = x[:, None] - self.signal[t, None, None] * self.means
        v = self.signal[t, None] ** 2 * self.stds**2 + self.noise_variance[t, None]  # [B, K]
        log_r = self.log_weights - n / 2 * v.log() - delta.square().sum(-1) / (2 * v)
        if condition is not None:
            label = condition[:, None]
            apart = (label != torch.arange(k, device=x.device)) & (label != self.null_label)
            log_r = log_r.masked_fill(apart, -math.inf)
        return log_r.softmax(-1), delta / v[:, :, None]


def signals(length: int = 128) -> tuple[tuple[str, ...], Tensor]:
    """Names and shapes [K, length] float64, in [-1, 1], of six signals on 0…1."""
    u = torch.linspace(0, 1, length, dtype=torch.float64)
    wave = 2 * math.pi * u
    shapes = {
        "slow sine": 0.8 * (2 * wave).sin(),
        "fast sine": 0.8 * (7 * wave).sin(),
        "chirp": 0.8 * (wave * (1 + 5 * u)).sin(),
        "square wave": 0.8 * (6 * (3 * wave).sin()).tanh(),
        "sawtooth": sum(0.55 * (-1) ** (j + 1) / j * (3 * j * wave).sin() for j in range(1, 7)),
        "pulse": 1.6 * (-(((u - 0.5) / 0.07) ** 2)).exp() - 0.6,
    }
    return tuple(shapes), torch.stack([torch.as_tensor(shape) for shape in shapes.values()])


def model(
    means: Tensor | None = None,
    stds: Tensor | float = STD,
    weights: Tensor | None = None,
    *,
    schedule: NoiseSchedule | None = None,
    prediction: str = "epsilon",
    shape: tuple[int, int, int] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Model:
    """A mixture as a model that `sample` takes; by default the six `signals`, one label each."""
    means = signals()[1] if means is None else means
    schedule = schedules.linear() if schedule is None else schedule
    network = GaussianMixtureDenoiser(means, stds, weights, schedule, prediction, dtype)
    k, n = means.shape
    return Model(
        name="signal",
        network=network.eval(),
        shape=(1, 1, n) if shape is None else shape,
        schedule=schedule,
        prediction=prediction,
        classes=k,
        null_label=k,
        trained=True,
        about=f"a mixture of {k} Gaussians in {n} dimensions; the denoiser is exact, not trained",
    )


def demonstration(seed: int = 0, shown: Collection[int] = tuple(SHOWN)) -> dict[str, Samples]:
    """One signal drawn by DDPM and by DDIM from the same start, with x_t and the x0 estimate at `shown`."""
    m = model()
    ways = {
        "DDPM": trajectory.ancestral(m.schedule, clip=None),
        "DDIM": trajectory.ddim(m.schedule, clip=None),
    }
    return {name: sample(m, way, count=1, seed=seed, keep=shown, progress=False) for name, way in ways.items()}


def save_demonstration(path: Path, seed: int = 0) -> dict[str, str]:
    """Draw the demonstration as a figure; returns which signal each sampler arrived at."""
    names, shapes = signals()
    network = GaussianMixtureDenoiser(shapes, STD, None, schedules.linear())
    rows = ("DDPM\nfresh noise in every step", "DDIM\nthe start decides all")
    samples: dict[str, Samples] = {}
    captions: dict[str, list[str]] = {}
    truths: dict[str, Tensor] = {}
    found: dict[str, str] = {}
    for (way, drawn), row in zip(demonstration(seed).items(), rows, strict=True):
        samples[row] = drawn
        captions[row] = []
        for t, (x, _) in drawn.kept.items():
            r = network.responsibilities(x, torch.tensor([t]))[0]  # [K]
            sure = "> 99%" if float(r.max()) > 0.99 else f"{float(r.max()):.0%}"
            captions[row].append(f"{names[int(r.argmax())]}: {sure}")
        nearest = int((drawn.images.flatten() - shapes).square().sum(-1).argmin())
        found[way] = names[nearest]
        captions[row].append(f"a {names[nearest]}")
        truths[row] = shapes[nearest]
    save_denoising(samples, path, [*SHOWN.values(), ""], captions, truths)
    return found
