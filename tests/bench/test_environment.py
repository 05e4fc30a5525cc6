import pytest

from bench import environment


@pytest.mark.parametrize(
    ("model", "capability", "folder"),
    [
        ("AMD EPYC", "AVX512", "amd-epyc-avx512-2cpu"),
        ("Intel(R) Xeon(R) Processor", "AVX512 AMX", "intel-xeon-avx512-amx-2cpu"),
        ("Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz", "AVX2", "intel-core-i7-8650u-1-90ghz-avx2-2cpu"),
    ],
)
def test_the_folder_of_a_machine_is_its_model_its_instructions_and_its_cpus(monkeypatch, model, capability, folder):
    monkeypatch.setattr(environment, "cpu_model", lambda: model)
    monkeypatch.setattr(environment.cpu, "capability", lambda: capability)
    monkeypatch.setattr(environment.os, "cpu_count", lambda: 2)
    assert environment.machine("cpu") == folder
