"""The machine and the code a result was taken with, and what would disturb a measurement now."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import torch

from bench import device_advice
from bench import nvml as nvml_of
from sampler import cpu
from sampler.errors import UsageError

THROTTLED = "cpu*/thermal_throttle/core_throttle_count"
ROOT = Path(__file__).parent.parent
COMMIT = "DDPM_BENCH_COMMIT"


def commit() -> tuple[str, bool]:
    """The checkout's short commit, and whether anything but results/ differs from it, or may: unknown is dirty.

    Where git does not tell (a copy without its repository), whoever made the copy says it: DDPM_BENCH_COMMIT=HASH, with
    -dirty behind it where the copy differs.
    """
    # a checkout that somebody else owns is read all the same: its code is what runs here
    git = ("git", "--no-optional-locks", "-c", f"safe.directory={ROOT}", "-C", str(ROOT))
    top = _output(*git, "rev-parse", "--show-toplevel")
    head = _output(*git, "rev-parse", "--short=10", "HEAD")
    if head and top and Path(top).resolve() == ROOT.resolve():  # else it is somebody else's repository around a copy
        return head, _output(*git, "status", "--porcelain", "--", ".", ":!results") != ""
    told = os.environ.get(COMMIT, "").strip()
    if not told:
        return "unknown", True
    if not re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?", told):
        raise UsageError(f"{COMMIT}={told} is no commit; give the hash that `git rev-parse HEAD` prints, or unset it")
    return told.removesuffix("-dirty")[:10], told.endswith("-dirty")


def for_fresh_processes() -> dict[str, str]:
    """Environment variables for a process (python -P) that finds this checkout first, then what the caller would.

    It stands where its caller does, so that the names of own models mean the same.
    """
    paths = [str(ROOT), os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def cpu_model() -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return match.group(1).strip() if match else platform.processor() or platform.machine()


def machine(device: str) -> str:
    """A folder name for results of this machine: like is kept with like."""
    if torch.device(device).type == "cuda":
        name = torch.cuda.get_device_name(torch.device(device))
    else:
        model = re.sub(r"\((r|tm)\)|\b(processor|cpu)\b", "", cpu_model(), flags=re.IGNORECASE)
        name = f"{model} {cpu.capability()} {os.cpu_count()}cpu"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def fingerprint(device: str) -> dict[str, Any]:
    """Everything of the environment that may move a figure."""
    head, dirty = commit()
    found: dict[str, Any] = {
        "machine": machine(device),
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "usable_cpus": cpu.usable(),
        "cpu_capability": cpu.capability(),
        "cpu_has_bf16": cpu.has_bf16(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "os": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "compiler": _output("g++", "-dumpfullversion") or "",
        "interop_threads": torch.get_num_interop_threads(),
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "allocator": os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF") or "default",
        "preloaded": os.environ.get("LD_PRELOAD") or "nothing",
        "commit": head,
        "dirty": dirty,
        "load_1min": round(os.getloadavg()[0], 2),
    }
    if torch.device(device).type == "cuda":
        properties = torch.cuda.get_device_properties(torch.device(device))
        found |= {
            "gpu": properties.name,
            "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            **nvml_facts(torch.device(device).index or 0),
        }
    return found


def nvml_facts(index: int, nvml: Any = None) -> dict[str, Any]:
    """The driver's version and the device's power limit, as far as NVML tells."""
    nvml = nvml_of.module(nvml)
    asked = {
        "driver": lambda handle: nvml.nvmlSystemGetDriverVersion(),
        "power_limit_w": lambda handle: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3,
        "max_sm_mhz": lambda handle: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
    }
    found: dict[str, Any] = {}
    try:
        handle = nvml_of.handle(index, nvml)
        for name, ask in asked.items():
            found[name] = ask(handle)
    except nvml.NVMLError as error:
        found["nvml"] = str(error)
    return found


# of the fingerprint: what changes from run to run on one machine and one commit
MOMENTARY = ("load_1min", "commit", "dirty")


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What of two fingerprints differs beside the commit and the moment, as 'name: one / other'.

    Figures of two results belong in one table only where this is empty. What an older result did not record counts
    as unknown, and differs.
    """
    names = [name for name in {**one, **other} if name not in MOMENTARY]
    return [f"{name}: {one.get(name, 'unknown')} / {other.get(name, 'unknown')}"
            for name in names if one.get(name, "unknown") != other.get(name, "unknown")]  # fmt: skip


def advice(device: str) -> list[tuple[str, str]]:
    """Findings as (level, sentence); level 'ok', 'note' (it limits the table) or 'warn' (it disturbs)."""
    findings: list[tuple[str, str]] = []
    load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    pressure = re.search(r"some avg10=([\d.]+)", _read("/proc/pressure/cpu"))
    waiting = float(pressure.group(1)) if pressure else 0.0
    if load > 0.5 or waiting > 5:
        findings.append(
            ("warn", f"other work is running (load {load:.2f} on {cpus} CPUs, {waiting:.0f} % of the last 10 s "
             "somebody waited for a CPU); stop it, or expect wider intervals")
        )  # fmt: skip
    else:
        findings.append(("ok", f"the machine is quiet (load {load:.2f} on {cpus} CPUs)"))
    steal = _steal_share()
    if steal > 0.02:
        findings.append(("warn", f"since boot, {steal:.0%} of the CPU time was taken by other virtual machines"))
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if shutil.which("g++") is None:
        findings.append(("note", "no g++: the compiled rows cannot run; install g++"))
    elif not header.exists():
        findings.append(("note", f"no {header}: the compiled rows cannot run; install Python's headers"))
    else:
        findings.append(("ok", "g++ and Python's headers are here: Inductor can compile"))
    governor = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
    if governor:
        level = "ok" if governor == "performance" else "warn"
        findings.append((level, f"the CPU frequency governor is {governor!r}"))
    else:
        findings.append(("note", "the CPU's frequency cannot be read or fixed here; the two arms share its drift"))
    findings += _threads_advice(cpus)
    throttled = sum(int(_read(str(path)) or 0) for path in Path("/sys/devices/system/cpu").glob(THROTTLED))
    if throttled:
        findings.append(("warn", f"heat slowed the CPU down {throttled} times since boot; cool it, or expect drift"))
    if not cpu.has_bf16():
        findings.append(("note", "this CPU has no bfloat16 instructions: half precision is emulated, and slow"))
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        findings.append(("note", "PYTHONDONTWRITEBYTECODE is set: each fresh process takes seconds longer to start"))
    if not Path("/proc/pressure/cpu").exists():
        findings.append(("note", "the kernel tells no pressure (PSI): slices disturbed by others are marked by steal "
                         "time alone"))  # fmt: skip
    kind = torch.device(device).type
    if kind == "cuda":
        findings += device_advice.advice(torch.device(device).index or 0)
    if not torch.cuda.is_available():
        findings.append(("note", "no CUDA device: rows that need one are grey"))
    findings.append(("ok", f"PyTorch {torch.__version__}, device {device}, clock: "
                     + ("CUDA events" if kind == "cuda" else "process CPU time, wall time beside it")))  # fmt: skip
    head, dirty = commit()
    if head == "unknown":
        findings.append(("warn", f"git does not tell the commit of this checkout; set {COMMIT} to it, or results will "
                         "be of an unknown commit and marked dirty"))  # fmt: skip
    elif dirty:
        findings.append(("note", "the checkout has uncommitted changes; results will be marked dirty"))
    return findings


def _threads_advice(cpus: int) -> list[tuple[str, str]]:
    """How many CPUs this process may really use, and what decides its threads."""
    usable = cpu.usable()
    findings = [("ok", f"rows are timed on one thread (--threads); {usable} of {cpus} CPUs may be used")]
    if usable < 2:
        findings.append(("warn", "only one CPU may be used: the harness and other work share it with every row"))
    quota = cpu_quota(_read("/sys/fs/cgroup/cpu.max"))
    if quota is not None and quota < usable:
        stopped = re.search(r"^nr_throttled (\d+)", _read("/sys/fs/cgroup/cpu.stat"), re.MULTILINE)
        findings.append(("warn", f"the container may use {quota:.2g} CPUs, and was stopped "
                         f"{stopped[1] if stopped else '?'} times for using more; wall times jump there"))  # fmt: skip
    set_ = os.environ.get("OMP_NUM_THREADS")
    if set_ not in (None, "1"):
        findings.append(("note", f"OMP_NUM_THREADS={set_} is overruled by --threads in the rows that are timed"))
    return findings


def cpu_quota(text: str) -> float | None:
    """CPUs that a control group may use, from its cpu.max ('max 100000' or '150000 100000'); None: no limit."""
    quota, _, period = text.strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _steal_share() -> float:
    fields = [int(v) for v in _read("/proc/stat").partition("\n")[0].split()[1:9]]
    total = float(sum(fields))
    return fields[7] / total if len(fields) == 8 and total else 0.0


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _output(*command: str) -> str | None:
    """What a program prints; None where it cannot be run or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
