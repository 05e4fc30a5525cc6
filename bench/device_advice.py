"""What a CUDA device will show a first run: the driver, clocks, other processes, free memory, cuDNN's attention."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench import nvml as nvml_of
from bench.telemetry import HARMLESS

Finding = tuple[str, str]  # level and sentence, as of `environment.advice`
PIXELS, HEADS, CHANNELS = 49, 4, 16  # of the shipped network's attention, a head's channels
FREE = 0.9  # share of the device's memory below which somebody else is taken to be there


def advice(
    index: int, nvml: Any = None, cuda: Any = torch.cuda, attend: Callable[[], Any] | None = None
) -> list[Finding]:
    """What is found of PyTorch's device `index`. attend(): runs cuDNN's attention, or raises."""
    nvml = nvml_of.module(nvml)
    try:
        found = _by_nvml(nvml_of.handle(index, nvml), nvml)
    except nvml.NVMLError as error:
        without = "no clocks, power or throttling beside the figures, and rows may fail to be inspected"
        found = [
            ("warn", f"NVML cannot be asked ({error}): {without}, for PyTorch then asks the driver before it forks")
        ]
    free, total = cuda.mem_get_info(index)
    level = "ok" if free > FREE * total else "warn"
    found.append((level, f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB of the device's memory are free"))
    return [*found, cudnn_attention(attend or attend_by_cudnn)]


def _by_nvml(handle: Any, nvml: Any) -> list[Finding]:
    """What the driver tells; what this device does not is named."""
    silent: list[str] = []

    def told(name: str, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except nvml.NVMLError:
            silent.append(name)
            return None

    found = [("ok", f"NVML answers: driver {nvml.nvmlSystemGetDriverVersion()}; PyTorch's CUDA {torch.version.cuda}")]
    now = told("clocks", lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))
    most = told("clocks", lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM))
    if now is not None and most is not None:
        found.append(
            ("ok", f"its clock is {now} of {most} MHz now and follows the load: slices.csv keeps each slice's")
        )
    if slowed := told("throttling", lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle) & ~HARMLESS):
        found.append(("warn", f"the device is slowed down now (reasons {slowed:#x} of nvml.h): slices will be marked"))
    if told("energy", lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) is not None:
        found.append(("ok", "the device counts its energy: joules an image can be told"))
    running = told("processes", lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle))
    others = 0 if running is None else max(0, len(running) - 1)  # this one has a context by now
    if others:
        found.append(("warn", f"{others} other process{'es' * (others > 1)} on the device: every slice will be marked"))
    elif running is not None:
        found.append(("ok", "no other process is on the device"))
    if silent:
        found.append(("note", f"NVML does not tell: {', '.join(dict.fromkeys(silent))}"))
    return found


def attend_by_cudnn() -> None:
    """The shipped network's attention in bfloat16, as a channels-last convolution leaves it, by cuDNN alone."""
    qkv = torch.randn(32, PIXELS, 3, HEADS, CHANNELS, device="cuda", dtype=torch.bfloat16)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [B, heads, pixels, channels] each
    with torch.inference_mode(), sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        F.scaled_dot_product_attention(q, k, v)
    torch.cuda.synchronize()


def cudnn_attention(attend: Callable[[], Any]) -> Finding:
    """Whether what the rows in half precision stand on runs at all."""
    shape = f"{PIXELS} pixels, {CHANNELS} channels a head, bfloat16"
    try:
        attend()
    except Exception as error:  # cuDNN's own words, whatever they are
        way_out = "TORCH_CUDNN_SDPA_DEPRIORITIZED=1 lets PyTorch take another kernel"
        return "warn", f"cuDNN's attention does not run at {shape}, and half precision may fail: {way_out} ({error})"
    return "ok", f"cuDNN's attention runs at {shape}"
