"""What `doctor --device cuda` says of a device, through fakes of NVML and of cuDNN."""

import os
from types import SimpleNamespace

import pytest

from bench.device_advice import advice

GIB = 2**30


class Nvml:
    """A driver that answers, but for what is in `silent`."""

    NVML_CLOCK_SM = 1

    class NVMLError(Exception):
        pass

    def __init__(self, silent: tuple[str, ...] = (), processes: int = 1, reasons: int = 0x1):
        self.silent, self.processes, self.reasons = silent, processes, reasons

    def __getattr__(self, name: str):
        answers = {
            "nvmlInit": None, "nvmlDeviceGetHandleByIndex": 0, "nvmlSystemGetDriverVersion": "580.1",
            "nvmlDeviceGetClockInfo": 345, "nvmlDeviceGetMaxClockInfo": 1980,
            "nvmlDeviceGetCurrentClocksThrottleReasons": self.reasons, "nvmlDeviceGetTotalEnergyConsumption": 7,
            "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=os.getpid() + i) for i in
                                                     range(self.processes)],
        }  # fmt: skip

        def call(*arguments):
            if any(part in name for part in self.silent):
                raise self.NVMLError("not supported")
            return answers[name]

        return call


def found(nvml: Nvml, free: float = 139.0, attend=lambda: None) -> list[tuple[str, str]]:
    cuda = SimpleNamespace(mem_get_info=lambda index: (int(free * GIB), 140 * GIB))
    return advice(0, nvml, cuda, attend)


def test_a_device_that_is_quiet_and_whole() -> None:
    assert {level for level, _ in found(Nvml())} == {"ok"}
    text = "\n".join(sentence for _, sentence in found(Nvml()))
    for fact in ("driver 580.1", "345 of 1980 MHz", "no other process", "139.0 of 140.0 GiB", "attention runs"):
        assert fact in text


def broken() -> None:
    raise RuntimeError("No execution plans support the graph.")


@pytest.mark.parametrize(("given", "level", "fact"), [
    ({"nvml": Nvml(("Init",))}, "warn", "NVML cannot be asked (not supported)"),
    ({"nvml": Nvml(processes=3)}, "warn", "2 other processes"),
    ({"nvml": Nvml(reasons=0x1 | 0x8)}, "warn", "slowed down now (reasons 0x8"),
    ({"nvml": Nvml(("Energy", "Processes"))}, "note", "NVML does not tell: energy, processes"),
    ({"nvml": Nvml(), "free": 100.0}, "warn", "100.0 of 140.0 GiB"),
    ({"nvml": Nvml(), "attend": broken}, "warn", "TORCH_CUDNN_SDPA_DEPRIORITIZED=1"),
])  # fmt: skip
def test_what_would_spoil_a_first_run_is_said(given, level, fact) -> None:
    (told,) = [sentence for its, sentence in found(**given) if its == level]
    assert fact in told
    assert len(found(**given)) >= 3  # and the rest all the same
