"""The whole cost of a row, from events whose figures are known."""

import io
import math
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from bench import environment, memory_command, report, run, store
from bench.__main__ import comparable, main
from bench.contenders import CONTENDERS
from bench.cost import Cost, best_uncompiled
from bench.inspection import Inspection, other_batches
from bench.measurement import Measurement
from bench.memory import PARTS, PHASES
from bench.quality import same_noise
from bench.report import cost_table, memory_chart, method, profile_chart, slices_chart, table
from bench.workload import workload
from tests.bench.synthetic import first_call, measurement, pairs, segments

MIB = 2**20


def call(row: str, seconds: float, compile_s: float = 0.0) -> dict:
    parts = {"load_s": 0.1, "compile_s": compile_s, "autotune_s": 0.0, "capture_s": 0.0}
    return {**first_call(row, 1000, seconds, compile_s > 0), **parts}


def phases(row: str) -> list[dict]:
    return [
        {"event": "memory", "row": row, "phase": phase, "live_peak": (10 + i) * MIB, "live_after": 9 * MIB,
         "held": (20 + i) * MIB, "graph_pools": None, "driver": None,
         "parts": dict(zip(PARTS, (8 * MIB, MIB, (1 + i) * MIB, 10 * MIB), strict=True))}
        for i, phase in enumerate(PHASES)
    ]  # fmt: skip


def looked_at(row: str, seconds: float, compile_s: float = 0.0) -> list[dict]:
    """All that an inspection says of a row."""
    kinds = {"convolution": 6000.0, "update": 1000.0, "noise": 1000.0, "Python": 2000.0}
    return [
        call(row, seconds, compile_s), *phases(row),
        {"event": "memory_scaling", "row": row, "table_bytes": 80, "available": 100 * MIB + 80_000,
         "points": [[4, 2, 14 * MIB + 160], [4, 6, 14 * MIB + 480], [1, 2, 11 * MIB + 160], [8, 2, 18 * MIB + 160]]},
        {"event": "timeline", "row": row, "steps": 6, "points": [[0.0, MIB], [0.01, 2 * MIB], [0.02, MIB]]},
        {"event": "evidence", "row": row, "where": "inspection", "findings": [[True, "seen to work"]], "process": -1,
         "seen": {"products": [["convolution", "float32", 4, 84], ["matrix product", "bfloat16", 4, 999]]}},
        {"event": "evidence", "row": row, "where": "timed", "findings": [[True, "still"]], "process": 0,
         "seen": {"counts": {"steps": 30}}},
        {"event": "evidence", "row": row, "where": "timed", "findings": [[True, "still"]], "process": 1,
         "seen": {"counts": {"steps": 12}}},
        {"event": "profile", "row": row, "steps": 2, "guided": 2, "span_us": 10_000.0, "launches": 60, "copies": 0,
         "by_kind_us": kinds},
    ]  # fmt: skip


ROOF = {"event": "roof", "copy_bytes_per_s": 1e10, "matrix_flop_per_s": {"float32": 5e10}, "call_us": 2.0,
        "flop_an_image": 1e6, "unfused_bytes_an_image": 1e6, "process": -1}  # fmt: skip


def made(row_ratio: float = 0.5, first_s: float = 31.0) -> Measurement:
    """A reference of 10 s a whole run of four images, a compiled row and one that compiles nothing, 0.8 as long."""
    events = [
        *looked_at("reference", 1.0), *looked_at("compiled", first_s, first_s - 1),
        *looked_at("batched-cfg", 1.0), ROOF,
        *pairs("compiled", {p: [row_ratio] for p in range(3)}), *pairs("batched-cfg", {p: [0.8] for p in range(3)}),
        *segments("reference", 1000, 10.0),
    ]  # fmt: skip
    return measurement(["reference", "compiled", "batched-cfg", "tf32"], [
        *events, {"event": "unavailable", "row": "tf32", "message": "needs CUDA"}
    ])  # fmt: skip


def test_break_even_is_where_the_totals_meet() -> None:
    job = made()
    compiled, reference = Cost(job.row("compiled")), Cost(job.row("reference"))
    assert reference.image_s == pytest.approx(2.5)
    assert compiled.image_s == pytest.approx(1.25)
    images = compiled.break_even_over_reference
    assert images == pytest.approx(30 / 1.25)
    assert 31 + images * compiled.image_s == pytest.approx(1 + images * reference.image_s)
    assert best_uncompiled(job).name == "batched-cfg"
    assert compiled.break_even_over_uncompiled == pytest.approx(30 / (2.0 - 1.25))


def test_break_even_at_its_ends() -> None:
    assert math.isinf(Cost(made(row_ratio=1.1).row("compiled")).break_even_over_reference)  # slower: never
    assert Cost(made(first_s=0.5).row("compiled")).break_even_over_reference == 0  # quicker from the first image
    assert Cost(made().row("tf32")).break_even_over_reference is None
    assert [table.images(n) for n in (None, 0.0, 1.0, 1.2, math.inf, 23.4)] == [
        "–", "the first image", "the first image", "2 images", "never", "24 images"
    ]  # fmt: skip


def test_no_break_even_is_named_where_no_gain_is_shown() -> None:
    job = made()
    assert table.pays_from(Cost(job.row("compiled"))) == "24 images"
    assert table.pays_from(Cost(job.row("reference"))) == "–"
    for pair, ratio in zip(
        (e for e in job.events if e["event"] == "pair" and e["row"] == "compiled"), (0.9, 1.1, 0.98)
    ):
        pair["row_s"] = pair["reference_s"] * ratio
    assert table.pays_from(Cost(measurement(job.rows, job.events).row("compiled"))) == "no gain shown"


def test_memory_evidence_and_timed_steps() -> None:
    cost = Cost(made().row("compiled"))
    assert cost.phase("steady")["live_peak"] == 12 * MIB
    assert (cost.fit.fixed, cost.fit.per_image, cost.fit.per_step) == pytest.approx((10 * MIB, MIB, 80))
    assert cost.per_step_bytes == 80
    assert cost.largest_batch == 90  # 100 MiB and a thousand lines of the table, less 10 MiB, at 1 MiB an image
    assert cost.timed_steps == 42
    assert cost.evidence == "seen to work; checked on 42 timed steps"


def test_the_share_of_the_roof_and_of_the_update() -> None:
    cost = Cost(made().row("compiled"))
    assert cost.number_format == "float32"  # of the convolutions, not of the products
    assert cost.flop_an_image == pytest.approx(2 * 1000 * 1e6)  # two calls a guided step
    assert cost.roof_share == pytest.approx(2e9 / 1.25 / 5e10)
    assert cost.update_share == pytest.approx(0.1)
    assert cost.launches_a_step == 30
    assert cost.implausible == ""


def test_gaps_the_update_and_the_format_on_a_device() -> None:
    """Of the span: gaps of the host's making, and the update with those that it was waited for."""
    job = made()
    for e in job.events:
        if e["event"] == "profile" and e["row"] == "compiled":
            e |= {"gaps_us": 200.0, "update_us": 1500.0, "graph_launches": 4}
        if e["event"] == "evidence" and e["where"] == "inspection":
            e["seen"]["kernels"] = {"sm80_xmma_fprop_implicit_gemm_tf32f32": 1}
    cost = Cost(job.row("compiled"))
    assert cost.gap_share == pytest.approx(0.02)
    assert cost.update_share == pytest.approx(0.15)
    assert cost.launches_a_step == (60 + 4) / 2
    assert cost.number_format == "tf32"
    assert Cost(job.row("batched-cfg")).gap_share is None


def test_a_row_whose_kernels_come_from_a_cache_is_not_one_that_compiles_nothing() -> None:
    job = made()
    job.rows.append("fused-drawn")
    job.events += [*looked_at("fused-drawn", 1.0), *pairs("fused-drawn", {p: [0.1] for p in range(3)})]
    assert best_uncompiled(job).name == "batched-cfg"
    assert {name for name, c in CONTENDERS.items() if not c.compiles} >= {"reference", "batched-cfg", "ddim", "tf32"}
    assert not {"compiled", "native-update", "cuda-graph"} & {n for n, c in CONTENDERS.items() if not c.compiles}


def test_what_is_faster_than_the_device_allows_is_flagged() -> None:
    assert "times the matrix rate" in Cost(made(row_ratio=0.005).row("compiled")).implausible
    job = made()
    job.events = [{**e, "call_us": 400.0} if e["event"] == "roof" else e for e in job.events]  # 30 calls of 0.4 ms
    assert "its launches alone take 12.00 ms a step" in Cost(job.row("compiled")).implausible
    assert "implausible" in report.table.markdown(job)


def test_energy_an_image_from_the_parts_of_whole_runs() -> None:
    parts = [{**part, "energy_j": joules} for part, joules in zip(segments("ddim", 50, 1.0, 5), (10, 12, 11, 9, 13))]
    job = measurement(["reference", "ddim"], [first_call("ddim", 50), *pairs("ddim", {0: [1.0]}), *parts])
    energy = Cost(job.row("ddim")).energy_an_image_j
    assert energy.value == pytest.approx(11 / 10 * 50 / 4)  # 11 J in ten steps, 50 steps, four images
    assert energy.low < energy.value < energy.high
    assert Cost(job.row("reference")).energy_an_image_j is None


def test_disturbed_slices_are_counted_and_kept() -> None:
    job = made()
    for i, pair in enumerate(e for e in job.events if e["event"] == "pair" and e["row"] == "compiled"):
        pair["disturbed"] = i == 0
    assert Cost(job.row("compiled")).disturbed == (1, 3)
    assert len(job.row("compiled").pairs) == 3
    assert dict(method.facts(job))["contamination"].startswith(f"1 of {len(job.of('pair'))} pairs")


@pytest.mark.parametrize("watched", [True, False])
def test_where_nobody_watched_no_slice_is_called_undisturbed(watched: bool) -> None:
    job = made()
    if watched:
        job.of("pair")[0]["steal_s"] = 0.01  # of a calm machine most pairs say nothing at all
    assert Cost(job.row("compiled")).disturbed == ((0, 3) if watched else None)
    assert dict(method.facts(job))["contamination"].startswith("0 of") == watched
    assert ("0 ran beside other work" in slices_chart.plot(job).title) == watched
    assert ("not recorded" in cost_table.time_markdown(job)) != watched
    assert table.frame(job).disturbed_slices.notna().any() == watched


def test_every_line_of_every_table_has_a_cell_for_each_heading() -> None:
    job = made()
    job.rows += ["ddim", "tf32"]
    job.events += [{"event": "error", "row": "ddim", "process": -1, "message": "it | broke"},
                   {"event": "unavailable", "row": "tf32", "message": "needs CUDA"}]  # fmt: skip
    for text in (cost_table.markdown(job), table.markdown(job)):
        for block in text.split("\n\n"):
            lines = [line for line in block.splitlines() if line.startswith("|")]
            cells = {len(re.split(r"(?<!\\)\|", line)) for line in lines}
            assert len(cells) <= 1, lines


def test_the_tables_fill_what_a_cpu_can_fill_and_mark_the_rest() -> None:
    text = cost_table.markdown(made())
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| compiled")}
    assert lines
    rows = [line for line in text.splitlines() if line.startswith("| compiled |")]
    assert len(rows) == 3  # memory, cost, time
    assert "12.0 MiB / 22.0 MiB" in rows[0]
    assert rows[0].count("needs CUDA") == 2
    assert "24 images" in rows[1]
    assert "40 images" in rows[1]
    assert "seen to work" in rows[1]
    assert rows[1].count("needs CUDA") == 2
    assert "convolution 60%, Python 20%" in rows[2]
    assert "at most 1.111×" in rows[2]
    assert rows[2].count("needs CUDA") == 2
    assert len([line for line in text.splitlines() if line.startswith("| tf32 |")]) == 3
    on_gpu = made()
    on_gpu.environment["gpu"] = "made up"
    assert "needs CUDA" not in "".join(l for l in cost_table.markdown(on_gpu).splitlines() if "| compiled" in l)


def test_the_csv_has_every_cost_of_every_row(tmp_path) -> None:
    job = made()
    report.write(job, tmp_path)
    by = pd.read_csv(tmp_path / "rows.csv").set_index("row")
    assert by.loc["compiled", "break_even_images_over_reference"] == pytest.approx(24)
    assert by.loc["compiled", "steady_live_mib"] == 12
    assert by.loc["compiled", "roof_share"] == pytest.approx(0.032)
    assert np.isnan(by.loc["tf32", "steady_live_mib"])


@pytest.mark.parametrize("plot", [memory_chart.parts, memory_chart.against_speed, profile_chart.plot])
def test_charts_are_drawn_and_repeat(plot) -> None:
    one = plot(made()).png()
    assert one == plot(made()).png()
    image = Image.open(io.BytesIO(one))
    assert len(np.unique(np.asarray(image.convert("L")))) > 20
    assert plot(measurement(["reference"], [])) is None


def test_memory_command_keeps_its_report(capsys, monkeypatch, tmp_path) -> None:
    asked = []

    def look(workload, rows, looks, say, command, results, resume, below, **task):
        asked.append((workload.batch, rows, looks, task))
        assert (results, resume, below) == (tmp_path, False, "memory")
        job = made()
        job.events.append({"event": "error", "row": "batched-cfg", "message": "out of memory at batch 8: …"})
        attempt = {"within": 50 * MIB, "batch": 40, "foreseen": 50 * MIB, "peak": 49 * MIB}
        job.events.append({"event": "attempt", "row": "reference", **attempt})
        return job

    monkeypatch.setattr(memory_command, "look", look)
    assert main(["memory", "--batch", "8", "--rows", "compiled", "--within", "50", "--out", str(tmp_path)]) == 1
    assert asked == [(8, ["compiled"], ["first_call", "scaling", "attempt"], {"within": 50 * MIB})]
    captured = capsys.readouterr()
    assert "FAILED batched-cfg: out of memory at batch 8" in captured.err
    assert "was foreseen to take 50.0 MiB and took 49.0 MiB" in captured.out
    folder = tmp_path / "made-up-cpu" / "memory"
    assert {p.name for p in folder.iterdir()} >= {"memory.csv", "memory.md", "memory.png"}
    read = pd.read_csv(folder / "memory.csv")
    assert list(read[read.row == "compiled"].phase) == list(PHASES)
    assert set(read.row) == {"reference", "compiled", "batched-cfg", "tf32"}  # no row is dropped
    compiled = read[(read.row == "compiled") & (read.phase == "steady")].iloc[0]
    assert compiled.live_peak_bytes == 12 * MIB
    assert compiled.an_image_bytes == pytest.approx(MIB)
    assert sum(compiled[f"{part.replace(' ', '_')}_bytes"] for part in PARTS) == compiled.held_peak_bytes


@pytest.mark.parametrize(("arguments", "said"), [
    (["--memory-snapshot", "DIR"], "needs a CUDA device"),
    (["--within", "0"], "it must be positive"),
    (["--within", "nan"], "it must be positive"),
    (["--rows", "nonsense"], "unknown row 'nonsense'"),
])  # fmt: skip
def test_memory_command_refuses(capsys, tmp_path, arguments: list[str], said: str) -> None:
    assert main(["memory", "--out", str(tmp_path), *arguments]) == 3
    assert said in capsys.readouterr().err


def test_results_of_another_machine_or_library_differ_and_of_another_commit_do_not() -> None:
    mine = environment.fingerprint("cpu")
    assert environment.differences(mine, {**mine, "commit": "other", "dirty": True, "load_1min": 9.0}) == []
    assert environment.differences(mine, {**mine, "torch": "1.0"}) == [f"torch: {mine['torch']} / 1.0"]
    assert {"threads"} <= set(run._worked(workload("smoke"), ["ddim"], "x", None, lambda *a: None).environment)
    older = {k: v for k, v in mine.items() if k != "triton"}
    assert environment.differences(mine, older) == [f"triton: {mine['triton']} / unknown"]
    assert {"cpu", "memory_gib", "torch", "triton", "python", "tf32_matmul", "deterministic", "allocator", "commit",
            "dirty"} <= set(mine)  # fmt: skip


def test_doctor_tells_whether_a_run_now_may_stand_beside_the_newest_result(tmp_path) -> None:
    assert comparable("cpu", tmp_path) == ("note", "no result of this machine is stored yet")
    job = made()
    job.environment = {**environment.fingerprint("cpu"), "threads": 1}
    store.save(job, tmp_path)
    level, sentence = comparable("cpu", tmp_path)
    assert level == "ok", sentence
    job.environment["torch"] = "1.0"
    job.started = "2027-01-02T03:04:05Z"
    store.save(job, tmp_path)
    level, sentence = comparable("cpu", tmp_path)
    assert level == "note"
    assert "do not belong in one table: torch: 1.0 / " in sentence


def test_a_snapshot_of_the_allocator_is_started_and_kept(monkeypatch, tmp_path) -> None:
    said: list = []
    monkeypatch.setattr(torch.cuda.memory, "_record_memory_history", lambda **how: said.append(how))
    monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", lambda path: said.append(path))
    task = {"workload": workload("smoke").json(), "snapshot": str(tmp_path)}
    inspection = Inspection(task, CONTENDERS["ddim"], lambda **event: said.append(event["path"]))
    inspection.start_snapshot()
    inspection.keep_snapshot()
    path = str(tmp_path / "ddim.pickle")
    assert said == [{}, path, {"enabled": None}, path]


def test_a_large_batch_is_metered_at_smaller_ones_and_layer_1_can_be_left_out(monkeypatch) -> None:
    """Four times a large batch takes a device minutes that were to be timed, and so does a float64 run of it."""
    for batch in (1, 2, 16, 64, 65, 256, 512):
        others = other_batches(batch)
        assert len({batch, *others}) == 4
        assert max(others) <= max(256, batch)
    called: list[str] = []
    monkeypatch.setattr(
        same_noise, "of_contender", lambda *given: called.append("layer 1") or SimpleNamespace(json=dict)
    )
    for preset, times in (("gpu-large", 0), ("gpu", 1)):
        task = {"workload": workload(preset, batch=2).json()}
        inspection = Inspection(task, CONTENDERS["batched-cfg"], lambda **event: called.append(event["event"]))
        inspection.stage = inspection.arm = SimpleNamespace(sampler=None)  # type: ignore[assignment]
        inspection.same_noise()
        assert called == ["layer 1", "divergence"] * times
