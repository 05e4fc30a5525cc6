import pytest
import torch

from sampler import cpu


@pytest.fixture
def with_flags(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")

    def of(listed: str) -> None:
        monkeypatch.setattr(cpu.Path, "read_text", lambda _: f"model name\t: Made-up\nflags\t\t: {listed}\n")

    return of


@pytest.mark.parametrize(
    ("listed", "capability", "has_bf16"),
    [
        ("fpu avx512f", "AVX512 without BF16", False),
        ("fpu avx512f avx512_bf16", "AVX512", True),
        ("fpu avx512f avx512_bf16 amx_bf16 amx_tile", "AVX512 AMX", True),
        ("fpu avx512f avx512_bf16x", "AVX512 without BF16", False),
    ],
)
def test_number_formats_are_told_from_the_kernels_list(with_flags, listed, capability, has_bf16):
    with_flags(listed)
    assert cpu.capability() == capability
    assert cpu.has_bf16() is has_bf16


def test_a_system_that_lists_nothing_has_nothing(monkeypatch):
    def refuse(_):
        raise FileNotFoundError

    monkeypatch.setattr(cpu.Path, "read_text", refuse)
    assert cpu.flags() == set()
    assert not cpu.has_bf16()


@pytest.mark.parametrize(("listed", "has_bf16"), [("Features : asimd i8mm bf16", True), ("Features : asimd", False)])
def test_other_instructions_have_pytorchs_name(monkeypatch, listed, has_bf16):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    monkeypatch.setattr(cpu.Path, "read_text", lambda _: listed)
    assert cpu.capability() == "DEFAULT"
    assert cpu.has_bf16() is has_bf16
