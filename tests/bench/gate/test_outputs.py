"""What is shown of a gate's result."""

from xml.etree import ElementTree

from bench.gate import outputs
from tests.bench.gate.made_up import failing, noisy, passing, result, row

EVERY = [
    passing("reference"), failing("compiled"), row("slow|er", noisy(0.0, 2)),
    row("gone", problem="it has disappeared: the base has this row, this side does not"),
    row("cuda-graph", skipped="cannot run here: needs CUDA"),
]  # fmt: skip


def test_the_terminal_shows_every_row_the_worst_first_and_the_certificate() -> None:
    text = outputs.terminal(result(EVERY, control=passing("reference (base against itself)")))
    places = [text.index(name) for name in ("compiled", "gone", "slow|er", "reference ", "cuda-graph")]
    assert places == sorted(places)
    assert "1 FAIL, 1 MISSING, 1 UNSURE, 1 PASS" in text
    assert "slower by 8" in text
    assert "fresh 10^" in text
    assert "reference (base against itself)" in text
    assert "no certificate covers" in text


def test_markdown_says_what_got_slower_how_sure_and_how_to_see_it() -> None:
    text = outputs.markdown(result(EVERY))
    assert text.startswith("### ❌ Speed gate: 1 FAIL")
    assert "- **compiled** FAIL: slower by 8" in text
    assert "95 % interval" in text
    assert "See it yourself: `python -m bench gate --against abc1234`" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1  # every line has the same cells
    assert "slow\\|er" in text
    assert outputs.markdown(result([passing()])).startswith("### ✅ Speed gate: 1 PASS")
    assert outputs.markdown(result([EVERY[3]])).startswith("### ⚠️ Speed gate: 1 MISSING")


def test_markdown_cannot_be_broken_out_of() -> None:
    nasty = row("a<img src=x>`|", problem="line one\n# line two")
    text = outputs.markdown(result([nasty], this="x`<script>"))
    assert "<img" not in text
    assert "<script" not in text
    assert "\n# line" not in text


def test_junit_counts_agree_with_its_cases() -> None:
    for strict, errors in ((False, 1), (True, 2)):
        suite = ElementTree.fromstring(outputs.junit(result(EVERY, strict=strict)))
        assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped")) == (
            "5", "1", str(errors), "1",
        )  # fmt: skip
        assert len(suite.findall("testcase")) == 5
        assert len(suite.findall("testcase/error")) == errors
        assert "slower by" in suite.find("testcase/failure").get("message")


def test_junit_tells_of_contamination() -> None:
    suite = ElementTree.fromstring(outputs.junit(result([passing()], control=failing("reference"))))
    assert suite.get("errors") == "1"
    assert suite.find("testcase/error").get("type") == "CONTAMINATED"


def test_annotations_are_errors_for_fails_and_warnings_for_what_is_not_known() -> None:
    lines = outputs.annotations(result(EVERY))
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning", "::warning"]
    assert "compiled regressed" in lines[0]
    assert "95 %25 interval" in lines[0]  # a bare % would end the message
    assert all("\n" not in line for line in lines)
    (only,) = outputs.annotations(result(EVERY, control=failing("reference")))
    assert only.startswith("::warning title=speed gate::CONTAMINATED")


def test_what_became_faster_is_told() -> None:
    faster = row("ddim", noisy(-0.08, 60), noisy(-0.08, 60))
    assert "ddim became faster: -8" in outputs.terminal(result([faster]))
    assert "say why" in outputs.terminal(result([faster], ratchet=True))
