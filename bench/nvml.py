"""NVML's handle of a CUDA device: the driver numbers devices otherwise than a process that sees some of them."""

import importlib
from typing import Any

import torch


class Absent:
    """Stands in for pynvml where it is not installed: there is no driver to ask, and the reason is that."""

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None:
        raise self.NVMLError("pynvml is not installed: pip install nvidia-ml-py")


def module(nvml: Any = None) -> Any:
    """pynvml, or what stands in for it."""
    if nvml is not None:
        return nvml
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        return Absent()


def handle(index: int, nvml: Any, uuid_of=None) -> Any:
    """The handle of PyTorch's device `index`, found by its UUID; raises NVMLError where there is no driver to ask.

    uuid_of(index): the device's UUID without prefix, or '' where PyTorch does not tell (then the index must do).
    """
    nvml.nvmlInit()
    uuid = (uuid_of or _uuid)(index)
    return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}") if uuid else nvml.nvmlDeviceGetHandleByIndex(index)


def _uuid(index: int) -> str:
    if not torch.cuda.is_available():
        return ""
    return str(getattr(torch.cuda.get_device_properties(index), "uuid", ""))
