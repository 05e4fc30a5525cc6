"""What the machine was doing while a slice was timed: read around it, never inside.

A GPU's levels are read while it works off the steps that warm a slice up: idle, it would tell of another state.

Nothing is dropped for it: a slice taken on a throttled or disturbed machine is marked, and counted.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench import nvml as nvml_of

DISTURBED = (
    0.1  # share of a slice's time that others waited for a CPU, or that a hypervisor took, from which it is marked
)
# nvml.h: reasons that are no throttling: idle, and clocks that somebody set on purpose
HARMLESS = 0x1 | 0x2


class CpuTelemetry:
    """Steal time, pressure and frequency, where Linux tells them; read(path) returns a file's text or ''."""

    def __init__(self, read: Callable[[str], str] | None = None, tick_hz: int | None = None):
        self._read = read or _text
        self._tick_hz = tick_hz or os.sysconf("SC_CLK_TCK")
        self.has_pressure = bool(self._read("/proc/pressure/cpu"))
        self._frequency = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
        self.has_frequency = bool(self._read(self._frequency))

    def while_busy(self) -> None:
        """Nothing to look at: what counts on a CPU are counters."""

    def sample(self) -> dict[str, float]:
        """Counters since boot, in seconds, and the frequency now."""
        fields = self._read("/proc/stat").split("\n", 1)[0].split()
        found = {"steal_s": int(fields[8]) / self._tick_hz if len(fields) > 8 else 0.0}
        if self.has_pressure:
            line = self._read("/proc/pressure/cpu").split("\n", 1)[0]
            found["waiting_s"] = int(line.rsplit("total=", 1)[1]) / 1e6
        if self.has_frequency:
            found["mhz"] = int(self._read(self._frequency)) / 1e3
        return found

    def between(self, before: dict[str, float], after: dict[str, float], wall_s: float) -> dict[str, Any]:
        """What happened in between; marked `disturbed` where others took or wanted the CPU for a tenth of the time."""
        lost_s = {name: round(after[name] - before[name], 6) for name in ("steal_s", "waiting_s") if name in after}
        found: dict[str, Any] = {name: value for name, value in lost_s.items() if value}
        if "mhz" in after:
            found["mhz"] = after["mhz"]
        if max(lost_s.values(), default=0.0) > DISTURBED * wall_s:
            found["disturbed"] = True
        return found


class CudaTelemetry:
    """Clocks, power, temperature, throttling, energy and other processes, from NVML."""

    def __init__(self, index: int, nvml: Any = None):
        self.nvml = nvml_of.module(nvml)
        self.handle = nvml_of.handle(index, self.nvml)
        self._at_birth = 0.0
        self._busy: list[dict[str, float]] = []
        self._at_birth = self._levels().get("others", 0.0)

    def while_busy(self) -> None:
        """Look at a device that has something to do; the next `sample` tells of it."""
        self._busy.append(self._levels())

    def sample(self) -> dict[str, float]:
        """The energy counter now and the last levels seen busy, or else levels now; throttling wherever it was seen."""
        n, seen = self.nvml, self._busy or [self._levels()]
        self._busy = []
        told = [name for name in ("throttle", "others") if name in seen[-1]]
        worst: dict[str, float] = {name: max(levels[name] for levels in seen) for name in told}
        energy = self._told({"energy_j": lambda: n.nvmlDeviceGetTotalEnergyConsumption(self.handle) / 1e3})
        return {**seen[-1], **worst, **energy}

    def _levels(self) -> dict[str, float]:
        n, handle = self.nvml, self.handle
        return self._told({
            "sm_mhz": lambda: n.nvmlDeviceGetClockInfo(handle, n.NVML_CLOCK_SM),
            "memory_mhz": lambda: n.nvmlDeviceGetClockInfo(handle, n.NVML_CLOCK_MEM),
            "watts": lambda: n.nvmlDeviceGetPowerUsage(handle) / 1e3,
            "celsius": lambda: n.nvmlDeviceGetTemperature(handle, n.NVML_TEMPERATURE_GPU),
            "throttle": lambda: n.nvmlDeviceGetCurrentClocksThrottleReasons(handle) & ~HARMLESS,
            "others": self._others,
        })  # fmt: skip

    def _told(self, asked: dict[str, Callable[[], float]]) -> dict[str, float]:
        """What this device tells of what is asked; older ones know no energy counter, containers no processes."""
        found = {}
        for name, read in asked.items():
            try:
                found[name] = float(read())
            except self.nvml.NVMLError:
                continue
        return found

    def _others(self) -> float:
        """Processes on the device beside this one and its parent.

        In a container, where the driver knows them by other numbers: beside those that were there at first.
        """
        found = {process.pid for process in self.nvml.nvmlDeviceGetComputeRunningProcesses(self.handle)}
        if os.getpid() in found:
            return len(found - {os.getpid(), os.getppid()})
        return max(0.0, len(found) - self._at_birth)

    def between(self, before: dict[str, float], after: dict[str, float], wall_s: float) -> dict[str, Any]:
        """Levels, the energy in between, and `disturbed` where it was throttled or another process was there."""
        found: dict[str, Any] = {n: after[n] for n in ("sm_mhz", "memory_mhz", "watts", "celsius") if n in after}
        if "energy_j" in before and "energy_j" in after:
            found["energy_j"] = round(after["energy_j"] - before["energy_j"], 3)
        if any(sample.get(name, 0) for sample in (before, after) for name in ("throttle", "others")):
            found |= {"disturbed": True, "throttle": int(after.get("throttle", 0))}
        return found


# what tells that somebody watched: a slice that nothing disturbed is not marked
WATCHED = {"steal_s", "waiting_s", "mhz", "sm_mhz", "memory_mhz", "watts", "celsius", "energy_j", "disturbed"}


class NoTelemetry:
    """Where there is no driver to ask: nothing is known, so nothing is marked."""

    def while_busy(self) -> None:
        pass

    def sample(self) -> dict[str, float]:
        return {}

    def between(self, before: dict[str, float], after: dict[str, float], wall_s: float) -> dict[str, Any]:
        return {}


def telemetry_for(device: torch.device, nvml: Any = None):
    """The telemetry of a device; none where NVML cannot be had (`doctor` says so)."""
    if device.type != "cuda":
        return CpuTelemetry()
    nvml = nvml_of.module(nvml)
    try:
        return CudaTelemetry(device.index or 0, nvml)
    except nvml.NVMLError:
        return NoTelemetry()


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
