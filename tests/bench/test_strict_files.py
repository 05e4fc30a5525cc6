"""Every file that a command writes is read by a strict parser, whatever was measured; and every stored one."""

import argparse
import gzip
import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import break_even, conftest, memory_command, peers_command, scaling, store, strict_csv, walk
from bench.environment import ROOT
from bench.gate import calibrate, certificate
from bench.gate import command as gate
from bench.measurement import Measurement
from bench.quality import command as quality_command
from bench.quality import divergence
from bench.quality.same_noise import Divergence
from bench.report import side_by_side, slices_csv, table
from bench.tune import command as tune_command
from bench.tune import outputs
from bench.tune.journal import Journal
from bench.update import record as updates
from sampler.card import TrainingRecord
from sampler.training import TrainingOptions
from tests.bench.gate import made_up as gate_made_up
from tests.bench.gate.test_certificate import HEADER, LAUNCHES, decision, launch
from tests.bench.quality import test_quality_command as quality_made_up
from tests.bench.report import made_up as walk_made_up
from tests.bench.synthetic import everything, first_call, probe
from tests.bench.test_scaling import FOUND, made
from tests.bench.test_update import cost
from tests.bench.tune import test_outputs as tune_made_up
from tests.bench.tune.conftest import MadeUp

STDLIB_ALONE = "bench/gate/worker_script.py"  # runs in the other revision's tree, which may lack our codec


def refused(name: str):
    raise AssertionError(f"{name} is no JSON")


def strictly(path: Path) -> int:
    """How many documents a strict parser finds in a file."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = raw.decode().splitlines() if path.name.removesuffix(".gz").endswith(".jsonl") else [raw.decode()]
    for line in lines:
        json.loads(line, parse_constant=refused)
    return len(lines)


def odd() -> Measurement:
    """Every kind of row, and figures that no JSON number can be."""
    made = everything()
    made.events += [probe("ddim", math.nan), probe("batched-cfg", math.inf)]
    return made


def _run(folder: Path, monkeypatch) -> None:
    store.save(odd(), folder)


def _peers(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(peers_command, "page", lambda made: "")
    peers_command.keep([odd()], folder)


def _memory(folder: Path, monkeypatch) -> None:
    memory_command.keep(odd(), folder)


def _walk(folder: Path, monkeypatch) -> None:
    walk.save(replace(walk_made_up.walk(), guidance=math.inf), folder / "walk.json")


def _quality(folder: Path, monkeypatch) -> None:
    found = quality_made_up.made_up()
    found.took_s["drawing"] = math.nan
    found.divergence["compiled"] = replace(found.divergence["compiled"], error=(1e-6, math.nan, math.inf))
    monkeypatch.setattr(quality_command, "_fresh", lambda device, samples: found)
    monkeypatch.setattr(quality_command, "layer_1", lambda *_: None)
    monkeypatch.setattr(quality_command, "layer_2", lambda *_: None)
    monkeypatch.setattr(quality_command, "write", lambda *_: [])
    _main("quality", "--out", folder)


def _divergence(folder: Path, monkeypatch) -> None:
    def compare(asked, rows, found: dict[str, Divergence], wrong, processes, say) -> None:
        found["compiled"] = Divergence((9, 0), (1e-6, math.inf), (1e-6, math.nan), (1e-7,) * 2, 2.0, True, False)

    monkeypatch.setattr(divergence, "compare", compare)
    monkeypatch.setattr(divergence, "chart", lambda *_: b"")
    _main("divergence", "--out", folder)


def _break_even(folder: Path, monkeypatch) -> None:
    def events(workload, row, look, cold, **task) -> dict:
        return {"seconds": math.inf} if look == "draw" else \
               {"ready_s": 1.0, "step_s": 0.002 if row == "compiled" else 0.006, "steps": 1000}  # fmt: skip

    monkeypatch.setattr(break_even, "_events", events)
    _main("break-even", "compiled", "--out", folder)


def _update(folder: Path, monkeypatch) -> None:
    found = cost()
    found.sweep[0].seconds.append(math.inf)
    updates.save(found, folder / "update.json")


def _scaling(folder: Path, monkeypatch) -> None:
    scaling.keep(made(slower=math.inf), "page", argparse.Namespace(model="fashion-mnist", out=folder), FOUND)


def _tune(folder: Path, monkeypatch) -> None:
    tuning = tune_made_up.tuned(MadeUp)
    tuning.took_s = math.inf
    tuning.events.append({"event": "note", "seconds": math.nan})
    monkeypatch.setattr(outputs, "contents", lambda tuning: {})
    outputs.write(tuning, folder, "question")
    journal = Journal(folder / "journal.jsonl", {"budget_s": math.inf})
    journal.add({"event": "pair", "row_s": math.nan})
    journal.close(finished=False)
    (kept,) = Journal(folder / "journal.jsonl", {"budget_s": math.inf}).events
    assert math.isnan(kept["row_s"])


def _exhaustive(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(tune_command.exhaustive, "measure_all", lambda *_: odd())
    question = tune_made_up.tuned(MadeUp).asked
    tune_command._exhaust(question, folder, folder / "everything.json.gz")


def _calibrate(folder: Path, monkeypatch) -> None:
    state = folder / "gate-calibration.jsonl"
    state.write_text(json.dumps(HEADER) + "\n")
    found = iter([launch(decision("same", "PASS", d=math.inf)), *LAUNCHES])
    monkeypatch.setattr(calibrate, "_launch", lambda *_: next(found))
    calibrate.calibrate(state, ["quiet"], 3, 1.0)
    certificate.write(state)


def _gate(folder: Path, monkeypatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    result = gate_made_up.result([gate_made_up.passing()], environment={"machine": "made-up", "load_1min": math.nan})
    gate.write(result, argparse.Namespace(markdown=None, junit=None, json=folder / "gate.json"))


def _training(folder: Path, monkeypatch) -> None:
    TrainingRecord("m", TrainingOptions(), "cpu", 1, 2, 3, 4.0, math.nan, "", "", "", "").write(folder / "m.json")


def _main(*words: object) -> None:
    from bench.__main__ import main

    main([str(word) for word in words])


WRITERS: dict[str, Callable] = {
    "run": _run, "peers": _peers, "memory": _memory, "walk": _walk, "quality": _quality, "divergence": _divergence,
    "break-even": _break_even, "update": _update, "scaling": _scaling, "tune": _tune, "tune --exhaustive": _exhaustive,
    "calibrate": _calibrate, "gate": _gate, "sampler train": _training,
}  # fmt: skip


@pytest.mark.parametrize("command", WRITERS)
def test_what_a_command_writes_is_strict_whatever_was_measured(command, tmp_path, monkeypatch) -> None:
    WRITERS[command](tmp_path, monkeypatch)
    written = [path for path in tmp_path.rglob("*") if {".json", ".jsonl"} & {*path.suffixes}]
    assert written
    assert all(strictly(path) for path in written)
    text = b"".join(gzip.decompress(p.read_bytes()) if p.suffix == ".gz" else p.read_bytes() for p in written)
    assert b"_not_finite" in text  # what was odd did come as far as the file


def test_pytest_benchmarks_own_files_are_strict() -> None:
    written = {"benchmarks": [{"extra_info": {"break_even_images": math.inf}, "stats": {"ops": 3.0}}]}
    conftest.pytest_benchmark_update_json(written)
    extra = written["benchmarks"][0]["extra_info"]
    assert extra == {"break_even_images": None, "break_even_images_not_finite": "Infinity"}
    json.dumps(written, allow_nan=False)


def test_no_module_but_the_codec_touches_pythons_own_json() -> None:
    sources = [path for package in ("bench", "kernels", "sampler") for path in sorted((ROOT / package).rglob("*.py"))]
    found = [path for path in sources if re.search(r"^\s*(import|from) json\b", path.read_text(), re.MULTILINE)]
    assert [path.relative_to(ROOT).as_posix() for path in found] == [STDLIB_ALONE, "sampler/strict_json.py"]


STORED = sorted(p for p in store.KEPT.rglob("*") if {".json", ".jsonl"} & {*p.suffixes}
                and not {"local", "scratch", "pages"} & {*p.relative_to(store.KEPT).parts})  # fmt: skip


def test_every_stored_file_is_strict() -> None:
    assert STORED
    assert all(strictly(path) for path in STORED)


def test_a_stored_file_of_before_with_nan_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(odd().json()))
    with pytest.raises(AssertionError, match="is no JSON"):
        strictly(path)
    again = store.save(store.load(path), tmp_path)
    assert strictly(again)
    assert repr(store.load(again).json()) == repr(odd().json())


def test_numbers_of_a_csv_file_are_read_without_options() -> None:
    frame = pd.DataFrame({"row": ["a", "b", "c"], "images": [1.5, math.inf, -math.inf], "n": [10_000, 2, 3],
                          "x": [None, 1e-9, math.nan], "mixed": pd.Series([None, math.inf, 0.1], dtype=object),
                          "all": [math.inf] * 3, "same": [True, False, True]})  # fmt: skip
    text = strict_csv.dumps(frame)
    read = pd.read_csv(io.StringIO(text))
    assert "inf" not in text
    assert [read[name].dtype.kind for name in frame] == ["O", "f", "i", "f", "f", "f", "b"]
    np.testing.assert_array_equal(read["images"], [1.5, math.nan, math.nan])
    np.testing.assert_array_equal(read["mixed"], [math.nan, math.nan, 0.1])
    plain = frame[["row", "n", "x", "same"]]
    assert strict_csv.dumps(plain) == plain.to_csv(index=False)


def test_a_row_that_never_pays_says_so_beside_an_empty_cell() -> None:
    made = everything()
    made.events += [first_call("batched-cfg", 1000, 9.0)]
    read = pd.read_csv(io.StringIO(table.csv(made))).set_index("row")
    slower = read.loc["textbook"]
    assert math.isnan(slower["break_even_images_over_reference"])
    assert slower["break_even_over_reference_is"] == "never reached"
    assert read.loc["batched-cfg", "break_even_over_reference_is"] == "reached"


@pytest.mark.parametrize("made", [
    table.csv, slices_csv.csv, lambda m: side_by_side.csv([side_by_side.Result(letter, m) for letter in "AB"]),
    lambda m: strict_csv.dumps(memory_command.frame(m)),
], ids=["rows", "slices", "compare", "memory"])  # fmt: skip
def test_no_table_of_a_result_holds_an_infinity_or_a_thousands_separator(made) -> None:
    read = pd.read_csv(io.StringIO(made(odd())))
    for name, column in read.items():
        cells = set(column.dropna().astype(str).str.lower())
        assert not cells & {"inf", "-inf"}, name
        assert not any(cell.replace(",", "").isdecimal() and "," in cell for cell in cells), name
