"""Small denoisers and models that the sampler's tests share: fixed, quick, and on one thread."""

import pytest
import torch
from torch import Tensor, nn

from sampler import schedule as schedules
from sampler.models import Model
from sampler.schedule import NoiseSchedule
from sampler.unet import UNet, UNetConfig

TINY = UNetConfig(image_size=8, patch=2, widths=(8, 16), heads=2, classes=3)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def schedule() -> NoiseSchedule:
    return schedules.linear()


@pytest.fixture(scope="session")
def wavy() -> nn.Module:
    """A denoiser without weights to train: smooth, bounded, unlike at every timestep and pixel."""
    return Wavy()


@pytest.fixture(scope="session")
def unet() -> UNet:
    """The shipped size, every layer at work."""
    return with_random_weights(UNet(UNetConfig()), seed=1)


@pytest.fixture
def tiny() -> Model:
    """A model of three classes on 1×8×8 images whose call takes two milliseconds."""
    network = with_random_weights(UNet(TINY), seed=2)
    return Model("tiny", network, (1, 8, 8), schedules.linear(), classes=3, null_label=network.null_label)


@pytest.fixture(scope="session")
def relative_error():
    """The largest difference, in units of the largest expected value."""

    def error(actual: Tensor, expected: Tensor) -> float:
        return float((actual.double() - expected.double()).abs().max() / expected.double().abs().max())

    return error


@pytest.fixture(scope="session")
def recorded():
    """Makes a noise source that hands out normals drawn beforehand, timestep by timestep."""
    return Recorded


@pytest.fixture(scope="session")
def counted():
    """Wraps a network so that it notes the batch size of every call."""
    return Counted


class Wavy(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        phase = t.to(x.dtype).reshape(-1, 1, 1, 1) / 100
        shift = 0 if condition is None else condition.to(x.dtype).reshape(-1, 1, 1, 1)
        neighbour = x.roll(1, dims=-1)
        return self.gain.to(x.dtype) * (torch.sin(x + phase + shift) + torch.tanh(neighbour) / 2)


class Recorded:
    def __init__(self, seed: int, shape: tuple[int, ...], timesteps: int = 1001):
        generator = torch.Generator().manual_seed(seed)
        self.normals = torch.randn(timesteps, *shape, generator=generator)

    def draw(self, step: int, like: Tensor) -> Tensor:
        return self.normals[step].to(like.dtype)

    def select(self, start: int, stop: int) -> "Recorded":
        raise NotImplementedError("these normals belong to one batch")


class Counted(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.batches: list[int] = []

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        self.batches.append(len(x))
        assert t.shape == (len(x),)
        assert condition is None or len(condition) == len(x)
        return self.network(x, t, condition)


def with_random_weights(network: UNet, seed: int) -> UNet:
    """Fresh weights, also for the layers that would start at zero, from a seed of their own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1:
                fan_in = parameter[0].numel()
                parameter.normal_(0, fan_in**-0.5, generator=generator)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1, generator=generator)
    return network.eval()
