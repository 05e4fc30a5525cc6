"""Other implementations to measure beside, where they are installed: diffusers, denoising-diffusion-pytorch, azula."""

import importlib
import importlib.machinery
import sys
from types import ModuleType

# what denoising-diffusion-pytorch imports for its trainer and its evaluation, and its sampler never uses
FOR_ITS_TRAINER = ("torchvision", "torchvision.transforms", "torchvision.utils", "accelerate", "ema_pytorch")


def denoising_diffusion() -> ModuleType:
    """denoising-diffusion-pytorch's module with `Unet` and `GaussianDiffusion`.

    Where what its trainer needs is missing or broken (a torchvision built for another PyTorch), hollow modules stand
    in for that while it is imported. ImportError where the package itself is not there.
    """
    before = {name: sys.modules.get(name) for name in FOR_ITS_TRAINER}
    try:
        for name in FOR_ITS_TRAINER:
            _or_hollow(name)
        return importlib.import_module("denoising_diffusion_pytorch.denoising_diffusion_pytorch")
    finally:
        for name, module in before.items():
            if module is None and getattr(sys.modules.get(name), "hollow", False):
                del sys.modules[name]


def _or_hollow(name: str) -> None:
    try:
        importlib.import_module(name)
    except (ImportError, RuntimeError, AttributeError):
        module = _Hollow(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__path__ = []
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


class _Hollow(ModuleType):
    """Has whatever is asked of it, and nothing in it."""

    hollow = True

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return None
