"""The models that ship: their networks, what they were trained for, and where their weights are."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sampler import schedule as schedules
from sampler.errors import UsageError, unknown
from sampler.guidance import Condition
from sampler.schedule import NoiseSchedule
from sampler.unet import UNet, UNetConfig

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True, eq=False)
class Model:
    """A denoiser and what a sampler must know of it.

    network(x [B, C, H, W], t [B], condition [B, ...] or None) returns the prediction.
    shape: (C, H, W); prediction: 'epsilon', 'x0' or 'v'; classes: number of labels, 0 for none;
    null_label: the label for 'no label', outside 0…classes - 1, or None where there is none, and so no guidance;
    trained: False where the weights are random; clip: bound of the x0 estimate, None for none. decode: for latents,
    what makes pictures [B, C', H', W'] in [-1, 1] of them, outside the loop.
    """

    name: str
    network: nn.Module
    shape: tuple[int, int, int]
    schedule: NoiseSchedule
    prediction: str = "epsilon"
    classes: int = 0
    null_label: int | None = None
    trained: bool = False
    about: str = ""
    clip: float | None = 1.0
    decode: Callable[[Tensor], Tensor] | None = None

    @property
    def device(self) -> torch.device:
        tensors = chain(self.network.parameters(), self.network.buffers())
        return next(tensors, torch.empty(0)).device  # a denoiser in closed form may have neither

    @property
    def guidable(self) -> bool:
        """Whether there are labels to guide by, and one for 'no label'."""
        return self.classes > 0 and self.null_label is not None

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    def condition(self, labels: Tensor | None) -> Condition | None:
        """Labels [B] checked against the model, with their null counterpart; None for none."""
        if labels is None:
            return None
        if not self.classes:
            raise UsageError(f"model {self.name!r} takes no labels")
        if labels.dim() != 1 or labels.is_floating_point():
            raise UsageError(f"labels must be a vector of integers, got {list(labels.shape)} {labels.dtype}")
        bad = labels[(labels < 0) | (labels >= self.classes)]
        if len(bad):
            raise UsageError(f"label {int(bad[0])} is outside 0…{self.classes - 1}, the classes of {self.name!r}")
        labels = labels.long().to(self.device)
        # without a null label there is no guidance, and nothing reads the null condition
        return Condition(labels, labels) if self.null_label is None else Condition.labels(labels, self.null_label)

    def pictures(self, states: Tensor) -> Tensor:
        """What the sampler's last states [B, C, H, W] show: themselves, or what the decoder makes of these latents."""
        if self.decode is None:
            return states
        with torch.inference_mode():
            return self.decode(states.to(self.device))


@dataclass(frozen=True)
class Recipe:
    """How a shipped model is made: its size, and the file with its weights, if it was trained."""

    config: UNetConfig
    weights: str | None
    about: str


RECIPES = {
    "fashion-mnist": Recipe(
        UNetConfig(),
        "fashion-mnist.safetensors",
        "0.45 M parameters, 28×28, ten classes; sized for a CPU",
    ),
    "fashion-mnist-32": Recipe(
        UNetConfig(image_size=32, patch=1, widths=(64, 128, 128), blocks=2, attention=(1, 2), middle_blocks=2,
                   wide_skips=True),
        None,
        "7.2 M parameters, 32×32, ten classes; for accelerators; not trained yet: random weights, for speed only",
    ),
    "cifar10-size": Recipe(
        UNetConfig(image_channels=3, image_size=32, patch=1, widths=(128, 256, 256, 256), blocks=2,
                   attention=(1,), heads=1, middle_blocks=2, wide_skips=True),
        None,
        "37.8 M parameters, 3×32×32: the layout of DDPM's CIFAR-10 network (35.7 M; ours also scales by the "
        "timestep and knows ten labels); random weights, for speed only",
    ),
}  # fmt: skip


def load_model(name: str = "fashion-mnist", device: torch.device | str = "cpu", weights: Path | None = None) -> Model:
    """A model on a device, in evaluation mode: a shipped one, or your own (see `sampler.own_models`).

    weights: a file to use in place of a shipped model's own.
    """
    device = checked_device(device)
    if name not in RECIPES:
        from sampler import own_models

        if weights is not None and own_models.is_own(name):
            raise UsageError(f"weights were given for {name!r}, but a model of your own loads its own")
        return own_models.load(name, device)
    recipe = RECIPES[name]
    if weights is None and recipe.weights is not None:
        weights = WEIGHTS / recipe.weights
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would reseed every GPU too
        network = UNet(recipe.config)
        if weights is None:
            _randomise(network)
    if weights is not None:
        load_weights(network, weights)
    config = recipe.config
    return Model(
        name=name,
        network=network.eval().to(device),
        shape=(config.image_channels, config.image_size, config.image_size),
        schedule=schedules.linear(),
        classes=config.classes,
        null_label=network.null_label,
        trained=weights is not None,
        about=recipe.about,
    )


def load_weights(network: nn.Module, path: Path) -> None:
    """Fill a network from a safetensors file; refuses a file that is corrupt or of another network."""
    path = Path(path)
    if not path.exists():
        raise UsageError(f"no weights at {path}")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path} is not a readable safetensors file ({error})") from None
    expected = network.state_dict()
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or extra:
        what = f"lacks {missing[0]!r}" if missing else f"has {extra[0]!r}"
        raise UsageError(f"{path} holds weights of another architecture: it {what}")
    for name, value in expected.items():
        if state[name].shape != value.shape:
            raise UsageError(
                f"{path} holds weights of another architecture: {name!r} is {list(state[name].shape)}, "
                f"the network's is {list(value.shape)}"
            )
    network.load_state_dict(state)


def checked_device(device: torch.device | str) -> torch.device:
    """The device, or one sentence that says why it cannot be used."""
    try:
        device = torch.device(device)
    except RuntimeError:
        raise unknown("device", str(device), ("cpu", "cuda", "cuda:0")) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {str(device)!r} was asked for, but PyTorch sees no CUDA device here; use 'cpu'")
    if device.type not in ("cpu", "cuda"):
        raise unknown("device", str(device), ("cpu", "cuda", "cuda:0"))
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {str(device)!r} does not exist; there are {torch.cuda.device_count()}")
    return device


def _randomise(network: nn.Module) -> None:
    """Give the layers that start at zero small random weights, so that every layer has work to show."""
    init: Callable = nn.init.normal_
    for parameter in network.parameters():
        if not bool(parameter.any()):
            init(parameter, std=0.02)
