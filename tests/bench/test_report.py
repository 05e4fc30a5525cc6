"""What is made from a stored measurement: the same bytes each time, and no row lost."""

import io
import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench import report, store
from bench.report import figures, ladder, page, pictures, table
from bench.report.sources import Beside
from bench.whole_runs import encode
from tests.bench.synthetic import everything, measurement, pairs
from tests.bench.synthetic import pictures as picture_event

TEXTS = ["report.html", "report.md", "rows.csv", "slices.csv"]
DRAWN = ["speedup", "pictures", "slices"]
OUTPUTS = TEXTS + [f"figures/{name}.png" for name in DRAWN]
COST_COLUMNS = [
    "steady_live_mib",
    "steady_held_mib",
    "first_call_live_mib",
    "first_call_held_mib",
    "graph_pools_mib",
    "driver_mib",
    "steady_weights_mib",
    "steady_state_and_noise_mib",
    "steady_activations_mib",
    "steady_workspace_mib",
    "memory_fixed_mib",
    "memory_an_image_mib",
    "memory_a_step_bytes",
    "largest_batch_foreseen",
    "load_s",
    "compile_s",
    "autotune_s",
    "capture_s",
    "break_even_images_over_reference",
    "break_even_over_reference_is",
    "break_even_images_over_best_uncompiled",
    "break_even_over_best_uncompiled_is",
    "launches_a_step",
    "update_share",
    "gflop_an_image",
    "roof_share",
    "energy_an_image_j",
    "energy_an_image_j_low",
    "energy_an_image_j_high",
    "disturbed_slices",
    "implausible",
    "evidence",
]
QUALITY_COLUMNS = [
    "same_noise_share_of_bound",
    "same_bits",
    "quality",
    "quality_pictures",
    "label_accuracy",
    "kernel_lost",
    "kernel_lost_low",
    "kernel_lost_high",
    "kernel_budget",
    "accuracy_lost",
    "accuracy_lost_low",
    "accuracy_lost_high",
    "accuracy_budget",
    "diversity_lost",
    "diversity_lost_low",
    "diversity_lost_high",
    "diversity_budget",
    "strangeness_lost",
    "strangeness_lost_low",
    "strangeness_lost_high",
    "strangeness_budget",
]
CSV_COLUMNS = [
    "row",
    "status",
    "lossless",
    "steps",
    "step_ms",
    "whole_run_s",
    "whole_run_is",
    "images_per_s",
    "speedup",
    "speedup_low",
    "speedup_high",
    "speedup_wall",
    "speedup_wall_low",
    "speedup_wall_high",
    "speedup_over_textbook",
    "speedup_over_textbook_low",
    "speedup_over_textbook_high",
    "speedup_over_best_lossless",
    "speedup_over_best_lossless_low",
    "speedup_over_best_lossless_high",
    "half_width_percent",
    "needs_longer",
    "slices_against_whole_percent",
    "first_call_s",
    "first_call_is",
    "same_noise_error",
    *QUALITY_COLUMNS,
    *COST_COLUMNS,
    "pairs",
    "processes",
    "threads",
    "batch",
    "clock",
    "machine",
    "commit",
    "reason",
    "changes",
]


def test_the_same_result_gives_the_same_bytes(tmp_path) -> None:
    path = store.save(everything(), tmp_path)
    one, other = (report.write(store.load(path), tmp_path / name) for name in ("one", "other"))
    assert [p.relative_to(tmp_path / "one").as_posix() for p in one] == OUTPUTS
    for a, b in zip(one, other, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name
    for a in (p for p in one if p.suffix == ".png"):
        assert Image.open(a).size > (300, 100)


def test_the_csv_holds_every_row_at_full_precision(tmp_path) -> None:
    made = everything()
    report.write(made, tmp_path)
    read = pd.read_csv(tmp_path / "rows.csv")
    assert list(read.columns) == CSV_COLUMNS
    assert list(read["row"]) == made.rows
    assert dict(zip(read["row"], read["status"])) == {
        "reference": "ok", "textbook": "ok", "batched-cfg": "ok", "compiled": "red", "tf32": "grey", "ddim": "ok",
        "channels-last": "missing", "a|b<i>": "red",
    }  # fmt: skip
    by = read.set_index("row")
    interval = made.row("ddim").speedup
    read_back = list(by.loc["ddim", ["speedup", "speedup_low", "speedup_high"]])
    assert read_back == pytest.approx([interval.value, interval.low, interval.high], rel=1e-13)
    assert by.loc["ddim", "whole_run_is"] == "timed"
    assert by.loc["batched-cfg", "whole_run_is"] == "extrapolated"
    assert by.loc["batched-cfg", "processes"] == 3
    assert by["speedup"].notna().to_dict() == {n: made.row(n).status == "ok" for n in made.rows}


def test_the_markdown_holds_every_row_in_whole_cells(tmp_path) -> None:
    made = everything()
    report.write(made, tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    for name in made.rows[:-1]:
        assert any(line.startswith(f"| {name} |") for line in lines), name
    assert r"| a\|b&lt;i> |" in text
    assert r"FAILED: ValueError: &lt;lambda>\|x costs $5 or $ |" in text
    assert "| batched-cfg | 16 | – | – | – | FAILED: no memory |" in text
    assert "<" not in text
    first = lines[: 2 + len(made.rows)]
    assert {line.replace(r"\|", "").count("|") for line in first} == {len(table.COLUMNS) + 1}
    assert "| needs CUDA |" in text
    assert "~" in next(line for line in lines if line.startswith("| batched-cfg |"))


def test_figures_stand_to_the_right_and_words_to_the_left() -> None:
    rule = table._table(("row", "ms", "why", "count"), [["a", "1.5", "it broke", "–"], ["b", "~2", "", "12"]])[1]
    assert rule == "| --- | ---: | --- | ---: |"
    assert table._table(("row", "ms"), [])[1].count("|") == 3


def test_a_reason_of_several_lines_stays_in_its_cell() -> None:
    event = {"event": "error", "row": "ddim", "process": 0, "message": "one\ntwo"}
    lines = table.markdown(measurement(["reference", "ddim"], [event])).splitlines()
    assert any(line.endswith("| FAILED: one two |") for line in lines)


def test_the_terminal_shows_every_row_aligned() -> None:
    made = everything()
    lines = table.terminal(made).splitlines()
    assert [line.split()[0] for line in lines[4:]] == made.rows
    assert "uncommitted" not in lines[0]
    made.interrupted, made.environment["dirty"] = True, True
    assert "INTERRUPTED" in table.heading(made)
    assert "uncommitted" in table.heading(made)


def test_pictures_are_decoded_as_they_were_encoded() -> None:
    import torch

    grey = np.arange(2 * 3 * 8 * 8, dtype=np.int64).reshape(2, 3, 8, 8) % 256
    event = encode(torch.from_numpy(grey.astype(np.float32) / 127.5 - 1))
    assert np.array_equal(pictures.decode({**event, "shape": [2, 3, 8, 8]}), grey)
    beyond = encode(torch.tensor([[[[-7.0, 7.0]]]]))
    assert pictures.decode({**beyond, "shape": [1, 1, 1, 2]}).tolist() == [[[[0, 255]]]]


def test_the_grid_shows_each_picture_unchanged() -> None:
    grey = np.zeros((3, 1, 28, 28), np.uint8)
    for i, level in enumerate((40, 120, 200)):
        grey[i] = level
    made = measurement(["reference", "ddim"], [*pairs("ddim", {0: [1.0]}), picture_event("ddim", grey)])
    shown = np.asarray(Image.open(io.BytesIO(pictures.plot(made).png())).convert("L"))
    area = {level: int((shown == level).sum()) for level in (40, 120, 200)}
    assert min(area.values()) > 50 * 50
    assert max(area.values()) - min(area.values()) < 0.1 * max(area.values())
    columns = [np.median(np.nonzero(shown == level)[1]) for level in (40, 120, 200)]
    assert columns == sorted(columns)


def test_pictures_of_a_failed_row_are_not_shown() -> None:
    event = picture_event("ddim", np.zeros((1, 1, 28, 28), np.uint8))
    failed = {"event": "error", "row": "ddim", "process": 0, "message": "broke"}
    assert pictures.plot(measurement(["reference", "ddim"], [event, failed])) is None


def test_no_grid_without_pictures(tmp_path) -> None:
    made = measurement(["reference", "ddim"], pairs("ddim", {0: [1.0]}))
    assert not [p for p in report.write(made, tmp_path) if p.stem == "pictures"]


GREY = [{"event": "unavailable", "row": row, "message": f"needs {'$'} or {'$'}_{{"} for row in ("tf32", "cuda-graph")]
LADDERS = {
    "one row, one process": (["reference", "ddim"], pairs("ddim", {0: [1.0]})),
    "only grey rows": (["reference", "tf32", "cuda-graph"], GREY),
    "nothing at all": (["reference"], []),
    "far apart": (["reference", "ddim", "strided"], [*pairs("ddim", {0: [1e-4]}), *pairs("strided", {0: [1e4]})]),
}


@pytest.mark.parametrize("case", LADDERS)
@pytest.mark.filterwarnings("error")
def test_a_ladder_and_a_report_of(case: str, tmp_path) -> None:
    made = measurement(*LADDERS[case])
    image = Image.open(io.BytesIO(ladder.plot(made).png()))
    assert image.size > (1000, 200)
    assert len(np.unique(np.asarray(image.convert("L")))) > 20  # something is drawn
    report.write(made, tmp_path)
    read = pd.read_csv(tmp_path / "rows.csv")
    assert list(read["row"]) == made.rows


def test_one_process_gives_no_interval_and_says_so() -> None:
    made = measurement(["reference", "ddim"], pairs("ddim", {0: [0.5]}))
    assert math.isnan(made.row("ddim").speedup.low)
    assert "2.00 [no interval: one process]" in table.markdown(made)


def test_the_page_says_which_rows_need_a_longer_run() -> None:
    for spread, said in (([0.2, 0.3, 0.5], True), ([0.3, 0.3001, 0.2999], False)):
        wide = measurement(["reference", "ddim"], [*pairs("ddim", {p: [ratio] for p, ratio in enumerate(spread)})])
        html = page.html(wide, Beside(), figures.plots(wide, Beside()))
        assert ("interval needs a longer run" in html) is said
