"""Figures and page share one look: readable, safe for colour blindness, the same bytes each time."""

import re

import matplotlib.pyplot as plt
import pytest

from bench.measurement import Measurement
from bench.quality import divergence
from bench.quality.same_noise import Divergence
from bench.report import figures, style, table
from bench.report.sources import Beside
from tests.bench.synthetic import everything

TEXT, PAPER = ("ink", "quiet", "blue", "vermilion", "green"), ("paper", "wash")


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_colour_of_a_text_stands_out_from_its_paper(scheme: int) -> None:
    for paper in PAPER:
        for name in TEXT:
            one, other = sorted(luminance(style.PALETTE[n][scheme]) for n in (name, paper))
            assert (other + 0.05) / (one + 0.05) >= 4.5, (name, paper)


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[tuple[str, str]]]:
    made: Measurement = everything()
    return {plot.name: plot.inline() for plot in figures.plots(made, Beside()).values() if plot is not None}


def test_a_figure_in_the_page_takes_the_pages_colours(drawn) -> None:
    for name, elements in drawn.items():
        for _, svg in elements:
            assert "var(--ink)" in svg
            assert re.findall(r": (#[0-9a-f]{6})", svg) == [], name


def test_no_two_figures_share_a_name_of_a_part(drawn) -> None:
    ids = [found for elements in drawn.values() for _, svg in elements for found in re.findall(r' id="([^"]+)"', svg)]
    assert ids
    assert len(ids) == len(set(ids))
    for elements in drawn.values():
        for _, svg in elements:
            assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg)) <= set(ids)


def test_every_figure_says_its_message_and_has_words_in_its_place(drawn) -> None:
    for plot in figures.plots(everything(), Beside()).values():
        if plot is not None:
            assert len(plot.title.split()) >= 4
            assert len(plot.alt.split()) >= 8
            assert 'role="img" aria-label="' in plot.inline()[0][1]


def test_a_power_of_ten_is_text_and_no_formula() -> None:
    found = {"row": Divergence((9, 5, 0), (1e-6, 1e-3, 1e-2), (1e-6,) * 3, (1e-7,) * 3, 2.0, True, False)}
    with style.styled():
        figure = divergence.draw(found, style.NARROW_INCHES)
        figure.draw_without_rendering()
        texts = [text.get_text() for text in figure.axes[0].get_yticklabels()]
        plt.close(figure)
    assert {"10⁻⁶", "10⁻³"} <= set(texts)
    assert "$" not in "".join(texts)


def test_a_title_is_as_wide_as_its_figure() -> None:
    title = "Of thirteen rows four draw the pictures of the reference to within one grey level of all"
    plot = style.Plot("narrow", title, "words", lambda inches: plt.subplots(figsize=(4, 1))[0])
    figure = plot.titled()
    lines = figure.get_suptitle().splitlines()
    plt.close(figure)
    assert " ".join(lines) == title
    assert max(map(len, lines)) < 40


@pytest.mark.parametrize(("ratio", "text"), [(1.0, "1.00"), (0.99, "0.990"), (20.04, "20.0"), (100.2, "100"),
                                             (1234.5, "1,234"), (0.0834, "0.0834"), (999.6, "1,000")])  # fmt: skip
def test_a_ratio_has_three_digits_at_its_end_too(ratio: float, text: str) -> None:
    assert table.three(ratio) == text


def test_a_greys_share_of_ink_is_kept() -> None:
    svg = '<svg viewBox="0 0 1 1"><path style="fill: #ffffff; stroke: #000000"/><path style="fill: #7f7f7f"/></svg>'
    themed = style.themed(svg, "name", 'a "quoted" <text>')
    assert "fill: var(--paper)" in themed
    assert "stroke: color-mix(in srgb,var(--ink) 100%,var(--paper))" in themed
    assert "fill: color-mix(in srgb,var(--ink) 50%,var(--paper))" in themed
    assert 'aria-label="a &quot;quoted&quot; &lt;text&gt;"' in themed
