"""What of a CPU decides how it rounds, and how fast it is in which number format."""

from pathlib import Path

import torch


def capability() -> str:
    """PyTorch's name for the vector instructions it uses, and AMX where the CPU has that for bfloat16.

    oneDNN takes AMX's tiles for half precision; PyTorch's own name, 'AVX512', does not tell whether they are there.
    """
    return torch.backends.cpu.get_cpu_capability() + " AMX" * ("amx_bf16" in flags())


def has_bf16() -> bool:
    """Whether the CPU has instructions for bfloat16 (AVX-512 BF16, AMX, or Arm's)."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & flags())


def flags() -> set[str]:
    """The features that the kernel lists for the CPU; none where it lists none."""
    try:
        return set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return set()
