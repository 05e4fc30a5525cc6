"""The rows: each says what it changes and why it cannot run where it cannot."""

import ast
from pathlib import Path

import pytest

from bench import contenders, whole_runs
from bench.__main__ import main
from bench.contenders import CONTENDERS, full_path
from bench.quality import plan
from bench.report.textbook_table import CLAIMS
from sampler import schedule
from sampler.models import Model


def test_names_are_unique_and_say_what_they_change() -> None:
    assert len(CONTENDERS) == len(contenders._ALL)
    assert len({c.changes for c in CONTENDERS.values()}) == len(CONTENDERS)
    for name, contender in CONTENDERS.items():
        assert name == contender.name
        assert contender.changes.strip()


def test_names_used_elsewhere_exist() -> None:
    assert {*whole_runs.TELLING, *plan.rows("cpu"), *plan.rows("cuda"), *(claim.row for claim in CLAIMS)} <= set(
        CONTENDERS
    )


@pytest.mark.parametrize("name", CONTENDERS)
def test_a_cuda_row_says_why_it_cannot_run_on_a_cpu(name: str) -> None:
    contender = CONTENDERS[name]
    if contender.variant.needs == "cuda" or name.endswith("-cuda"):
        assert contender.unavailable("cpu").startswith("needs CUDA")
        assert contender.unavailable("cuda") == ""
    elif contender.variant.needs == "cpu":
        assert "CPU" in contender.unavailable("cuda:0")
    elif contender.needs != "half":
        assert contender.unavailable("cpu") == ""


def test_a_fused_update_that_cannot_run_names_the_rows_that_fuse_it_here() -> None:
    fused = [name for name, c in CONTENDERS.items() if "compiled-update and native-update" in c.unavailable("cpu")]
    assert fused == ["fused-update", "fused-guided", "fused-drawn"]
    for name in ("compiled-update", "native-update"):
        assert CONTENDERS[name].variant.update is not CONTENDERS["reference"].variant.update
        assert "cuda" not in CONTENDERS[name].variant.needs


def test_half_precision_is_refused_without_instructions(monkeypatch) -> None:
    half = contenders.Contender("half", "x", CONTENDERS["reference"].variant, needs="half")
    for has, on_cpu in ((True, False), (False, True)):
        monkeypatch.setattr(contenders.cpu, "has_bf16", lambda has=has: has)
        assert bool(half.unavailable("cpu")) == on_cpu
        assert half.unavailable("cuda") == ""


def test_only_a_row_on_the_references_path_may_claim_to_change_nothing() -> None:
    for contender in CONTENDERS.values():
        if contender.lossless:
            assert contender.path is full_path
            assert not contender.textbook
            assert contender.variant.guides_everywhere


A_TWENTIETH = ("ddim", "all-few-steps", "all-together", "all-together-cuda")


def test_steps_of_each_path() -> None:
    model = Model("none", None, (1, 2, 2), schedule.linear())  # type: ignore[arg-type]
    steps = {name: contender.path(model, 1000).steps for name, contender in CONTENDERS.items()}
    fewer = {name: n for name, n in steps.items() if n != 1000}
    assert fewer == {"textbook-strided": 250, "strided": 250, **dict.fromkeys(A_TWENTIETH, 50)}
    assert CONTENDERS["ddim"].path(model, 3).steps == 1


def test_list_shows_exactly_the_contenders(capsys) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(CONTENDERS)
    for line, contender in zip(lines, CONTENDERS.values(), strict=True):
        assert contender.changes in line
        assert ("same pictures" in line) == contender.lossless
        why = contender.unavailable("cpu")
        assert line.endswith(f"[{why}]" if why else contender.changes)


def test_there_is_a_benchmark_for_every_row() -> None:
    """bench/test_speedup.py takes its rows from the same list, and not from one of its own."""
    source = Path(contenders.__file__).with_name("test_speedup.py").read_text()
    (mark,) = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and "parametrize" in ast.dump(n.func)]
    assert ast.unparse(mark.args[1]) == "list(CONTENDERS)"
