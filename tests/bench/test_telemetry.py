"""Telemetry through made-up files and a made-up NVML: what is marked, and that nothing is dropped."""

import os
import sys
from types import SimpleNamespace

import pytest
import torch

from bench import nvml as nvml_of
from bench.environment import nvml_facts
from bench.meter import driver_bytes
from bench.telemetry import CpuTelemetry, CudaTelemetry, NoTelemetry, telemetry_for


def cpu(files: dict[str, str]) -> CpuTelemetry:
    return CpuTelemetry(lambda path: files.get(path.rsplit("/", 1)[-1] if "cpufreq" in path else path, ""), tick_hz=100)


STAT = "cpu  100 0 50 1000 0 0 0 {} 0 0\ncpu0 1 2 3\n"
PRESSURE = "some avg10=1.00 avg60=0.00 avg300=0.00 total={}\nfull avg10=0.00 total=7\n"


def test_steal_pressure_and_frequency_are_read_and_mark_a_slice() -> None:
    files = {
        "/proc/stat": STAT.format(200),
        "/proc/pressure/cpu": PRESSURE.format(1_000_000),
        "scaling_cur_freq": "2500000",
    }
    telemetry = cpu(files)
    before = telemetry.sample()
    assert before == {"steal_s": 2.0, "waiting_s": 1.0, "mhz": 2500.0}
    files["/proc/stat"], files["/proc/pressure/cpu"] = STAT.format(203), PRESSURE.format(1_004_000)
    after = telemetry.sample()
    assert telemetry.between(before, after, wall_s=1.0) == {"steal_s": 0.03, "waiting_s": 0.004, "mhz": 2500.0}
    assert telemetry.between(before, after, wall_s=0.2)["disturbed"] is True  # 30 ms stolen of 200


def test_a_kernel_that_tells_nothing_marks_nothing() -> None:
    telemetry = cpu({"/proc/stat": "cpu  1 2 3\n"})
    sample = telemetry.sample()
    assert sample == {"steal_s": 0.0}
    assert telemetry.between(sample, sample, 1.0) == {}


def test_this_machine_can_be_sampled() -> None:
    telemetry = CpuTelemetry()
    one = telemetry.sample()
    other = telemetry.sample()
    assert other["steal_s"] >= one["steal_s"]
    assert set(telemetry.between(one, other, 1.0)) <= {"steal_s", "waiting_s", "mhz", "disturbed"}


class Nvml:
    """A device with these levels; what is None is not supported."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    class NVMLError(Exception):
        pass

    def __init__(self, **levels):
        self.levels = {"sm": 1980, "memory": 2619, "milliwatts": 300_000, "celsius": 50, "reasons": 0,
                       "millijoules": 1_000, "processes": 1, **levels}  # fmt: skip

    def _level(self, name):
        if self.levels[name] is None:
            raise self.NVMLError(name)
        return self.levels[name]

    def nvmlInit(self):
        self._level("sm")

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return uuid

    def nvmlDeviceGetClockInfo(self, handle, clock):
        return self._level({1: "sm", 2: "memory"}[clock])

    def nvmlDeviceGetPowerUsage(self, handle):
        return self._level("milliwatts")

    def nvmlDeviceGetTemperature(self, handle, sensor):
        return self._level("celsius")

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
        return self._level("reasons")

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return self._level("millijoules")

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return [SimpleNamespace(pid=i) for i in range(self._level("processes"))]

    def nvmlSystemGetDriverVersion(self):
        return "999.1"

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):
        return self._level("milliwatts")

    def nvmlDeviceGetMaxClockInfo(self, handle, clock):
        return self._level("sm")


def test_nvml_gives_levels_and_the_energy_in_between() -> None:
    nvml = Nvml()
    telemetry = CudaTelemetry(0, nvml)
    before = telemetry.sample()
    nvml.levels["millijoules"] = 8_500
    around = telemetry.between(before, telemetry.sample(), 0.1)
    assert around == {"sm_mhz": 1980, "memory_mhz": 2619, "watts": 300, "celsius": 50, "energy_j": 7.5}


@pytest.mark.parametrize(("changed", "disturbed"), [
    ({"reasons": 0x20}, True),  # software thermal slowdown
    ({"reasons": 0x1}, False),  # idle
    ({"reasons": 0x2}, False),  # clocks that somebody set
    ({"reasons": 0x4}, True),  # power cap
    ({"processes": 2}, True),  # somebody else on the device
    ({"processes": None}, False),  # in a container nobody tells
])  # fmt: skip
def test_a_throttled_or_shared_device_marks_the_slice(changed: dict, disturbed: bool) -> None:
    nvml = Nvml()
    telemetry = CudaTelemetry(0, nvml)
    before = telemetry.sample()
    nvml.levels |= changed
    after = telemetry.sample()
    around = telemetry.between(before, after, 0.1)
    assert bool(around.get("disturbed")) == disturbed
    assert around["watts"] == 300  # marked, and kept
    assert bool(telemetry.between(after, before, 0.1).get("disturbed")) == disturbed  # at either end


def test_levels_are_those_of_a_busy_device_and_throttling_is_not_missed() -> None:
    nvml = Nvml()
    telemetry = CudaTelemetry(0, nvml)
    before = telemetry.sample()
    for levels in ({"sm": 1200, "reasons": 0x4}, {"sm": 1410, "milliwatts": 690_000, "reasons": 0}):
        nvml.levels |= levels
        telemetry.while_busy()
    nvml.levels |= {"sm": 345, "milliwatts": 80_000}  # idle again
    around = telemetry.between(before, telemetry.sample(), 0.1)
    assert (around["sm_mhz"], around["watts"], around["disturbed"], around["throttle"]) == (1410, 690, True, 4)
    assert telemetry.sample()["sm_mhz"] == 345  # nobody looked since: as it is now


def test_other_processes_are_those_of_others(monkeypatch) -> None:
    """The harness itself may hold the device in two: this process and the one that started it."""

    def disturbed(at_birth: list[int], later: list[int]) -> bool:
        nvml = Nvml()
        monkeypatch.setattr(nvml, "nvmlDeviceGetComputeRunningProcesses", lambda handle: [
            SimpleNamespace(pid=pid) for pid in pids
        ])  # fmt: skip
        pids = at_birth
        telemetry = CudaTelemetry(0, nvml)
        pids = later
        return "disturbed" in telemetry.between(telemetry.sample(), telemetry.sample(), 0.1)

    us = [os.getpid(), os.getppid()]
    assert not disturbed(us, us)
    assert disturbed([*us, 1], [*us, 1])  # from the beginning
    assert not disturbed([11, 12], [11, 12])  # in a container we are known by other numbers
    assert disturbed([11, 12], [11, 12, 13])


def test_a_device_without_an_energy_counter_has_no_energy() -> None:
    telemetry = CudaTelemetry(0, Nvml(millijoules=None))
    sample = telemetry.sample()
    assert "energy_j" not in telemetry.between(sample, sample, 0.1)


def test_the_fingerprint_has_the_driver_and_the_power_limit_or_says_why_not() -> None:
    assert nvml_facts(0, Nvml()) == {"driver": "999.1", "power_limit_w": 300.0, "max_sm_mhz": 1980}
    assert nvml_facts(0, Nvml(sm=None)) == {"nvml": "sm"}


def test_a_device_is_found_by_its_uuid_where_pytorch_tells_it() -> None:
    assert nvml_of.handle(1, Nvml(), lambda index: "0123") == "GPU-0123"
    assert nvml_of.handle(1, Nvml(), lambda index: "") == 1


def test_without_pynvml_there_is_no_telemetry_and_the_reason_is_told(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # now importing it raises ImportError
    assert isinstance(telemetry_for(torch.device("cuda")), NoTelemetry)
    assert nvml_facts(0) == {"nvml": "pynvml is not installed: pip install nvidia-ml-py"}
    assert driver_bytes() is None


def test_without_a_driver_there_is_no_telemetry_and_no_error() -> None:
    telemetry = telemetry_for(torch.device("cuda"), Nvml(sm=None))
    assert isinstance(telemetry, NoTelemetry)
    assert telemetry.between(telemetry.sample(), telemetry.sample(), 1.0) == {}
    assert isinstance(telemetry_for(torch.device("cuda"), Nvml()), CudaTelemetry)
    assert isinstance(telemetry_for(torch.device("cpu")), CpuTelemetry)
