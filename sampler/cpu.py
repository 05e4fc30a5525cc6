"""What of a CPU decides how it rounds, and how fast it is in which number format."""

import os
from pathlib import Path

import torch


def capability() -> str:
    """PyTorch's name for the vector instructions it uses; of 'AVX512', also what the CPU has for bfloat16.

    oneDNN takes AMX's tiles for it, AVX-512 BF16 where there are none, and else emulates it: 'AVX512 AMX', 'AVX512',
    'AVX512 without BF16'.
    """
    name = torch.backends.cpu.get_cpu_capability()
    if name != "AVX512":
        return name
    return name + (" AMX" if "amx_bf16" in flags() else "" if has_bf16() else " without BF16")


def usable() -> int:
    """How many CPUs this process may use: fewer than the machine's under taskset, in a container or a batch job."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_bf16() -> bool:
    """Whether the CPU has instructions for bfloat16 (AVX-512 BF16, AMX, or Arm's)."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & flags())


def flags() -> set[str]:
    """The features that the kernel lists for the CPU; none where it lists none."""
    try:
        return set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return set()
