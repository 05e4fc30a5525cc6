"""The thresholds file: every entry has a reason, and a mistake is told in one sentence."""

import pytest

from bench.contenders import CONTENDERS
from bench.gate import thresholds
from sampler.errors import UsageError

ROW = '[rows.compiled]\ntolerated = 0.03\nmust_detect = 0.08\nreason = "the compiler chooses tiles afresh"\n'


def loaded(tmp_path, text: str):
    (tmp_path / "t.toml").write_text(text)
    return thresholds.load(tmp_path / "t.toml")


def test_the_shipped_file_names_rows_that_exist_and_gives_reasons() -> None:
    shipped = thresholds.load()
    assert set(shipped.rows) <= set(CONTENDERS)
    assert all(limits.reason for limits in [shipped.default, *shipped.rows.values()])
    assert (shipped.default.tolerated, shipped.default.must_detect) == (0.02, 0.05)


def test_a_row_overrides_what_it_names_and_inherits_the_rest(tmp_path) -> None:
    found = loaded(tmp_path, ROW)
    assert found.of("compiled").must_detect == 0.08
    assert found.of("compiled").picture == thresholds.load().default.picture
    assert found.of("reference") == thresholds.load().default


def test_the_rule_knows_the_rows_and_the_floor() -> None:
    limits = thresholds.load().default
    rule = limits.rule(7, 0.012)
    assert (rule.rows, rule.tolerated, rule.wall_must_detect) == (7, 0.02, 0.10)
    assert limits.rule(1, 1e-5).tolerated == pytest.approx(2.0)  # 20 µs of 10 µs


@pytest.mark.parametrize(("text", "said"), [
    ("[rows.compiled]\ntolerated = 0.03\n", "compiled gives no reason"),
    (ROW.replace("tolerated", "tolerance"), "unknown entry 'tolerance'"),
    (ROW.replace("0.03", "-0.03"), "tolerated = -0.03"),
    (ROW.replace("0.03", "true"), "tolerated = True"),
    (ROW.replace("0.03", '"much"'), "tolerated = 'much'"),
    (ROW.replace("0.03", "0.5"), "tolerates 0.5 but must detect 0.08"),
    (ROW + 'explained = ""\n', "an empty 'explained'"),
    ("[row.compiled]\n", "unknown section 'row'"),
    ("[rows", "is not TOML"),
    ("rows = 3\n", "rows is 3; sections like"),
    ("[rows]\nddim = 3\n", "ddim is 3; a section of its own is needed"),
])  # fmt: skip
def test_a_mistake_is_refused(tmp_path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        loaded(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        thresholds.load(tmp_path / "none.toml")
