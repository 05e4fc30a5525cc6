"""How every figure looks: one palette for files and page, and the same bytes for the same figure.

A figure is drawn once, in the light colours. As a file it is a PNG; inside the page it is an SVG whose colours are
replaced by the page's own variables, so that it follows a dark page.
"""

import io
import re
import textwrap
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.figure import Figure

from bench import png_file

# name: (on paper, on a dark page). The hues are Okabe & Ito's (2008), safe for colour blindness; those of the first
# three rows are also used for text, and dark (or light) enough for it: vermilion and green are darker than theirs.
PALETTE = {
    "paper": ("#ffffff", "#16181c"), "ink": ("#1d1f23", "#e9e7e2"),
    "quiet": ("#5b6069", "#a9aeb6"), "line": ("#d8dade", "#363b43"), "wash": ("#f5f5f3", "#1f2228"),
    "blue": ("#0072b2", "#5db4ee"), "vermilion": ("#b84c00", "#ff9d57"), "green": ("#007a58", "#35c79c"),
    "sky": ("#56b4e9", "#8accf2"), "orange": ("#e69f00", "#f2b93b"), "purple": ("#cc79a7", "#e3a2c6"),
    "yellow": ("#f0e442", "#f0e442"),
}  # fmt: skip
CYCLE = ("blue", "vermilion", "green", "sky", "orange", "purple", "ink")
WIDE_INCHES, NARROW_INCHES = 8.8, 3.5  # of a figure in the page, on a screen and on a phone
FILE_INCHES = 10.0
_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7.5, "ytick.labelsize": 8,
    "legend.fontsize": 7.5, "legend.frameon": False,
    "text.color": PALETTE["ink"][0], "axes.labelcolor": PALETTE["quiet"][0], "axes.edgecolor": PALETTE["line"][0],
    "xtick.color": PALETTE["quiet"][0], "ytick.color": PALETTE["line"][0], "ytick.labelcolor": PALETTE["ink"][0],
    "grid.color": PALETTE["line"][0], "grid.linewidth": 0.5, "axes.axisbelow": True, "axes.linewidth": 0.6,
    "axes.prop_cycle": cycler(color=[PALETTE[name][0] for name in CYCLE]),
    "axes.spines.top": False, "axes.spines.right": False,
    "svg.fonttype": "none", "svg.hashsalt": "ddpm-bench", "text.parse_math": False,
}  # fmt: skip


def colour(name: str) -> str:
    """A colour of the palette as it is drawn."""
    return PALETTE[name][0]


def styled() -> AbstractContextManager:
    """Within it, figures are drawn in the project's style; names with a dollar in them are no formulas."""
    return plt.rc_context(_SETTINGS)


@dataclass(frozen=True)
class Plot:
    """One figure: the message it carries, what it shows in words, and how to draw it.

    title: one sentence, the message. alt: what can be read off it, for whom it cannot be seen.
    draw(inches): the figure at a width, without its title. note: how to read it. source: where and when it was
    measured, which the page says once for all of its own.
    bends: whether it can be drawn as narrow as a phone; otherwise it scrolls there.
    """

    name: str
    title: str
    alt: str
    draw: Callable[[float], Figure]
    note: str = ""
    source: str = ""
    bends: bool = True

    def png(self) -> bytes:
        """The file's bytes, title included."""
        with styled():
            figure = self.titled()
            made = png_file.of(figure, dpi=130, facecolor=colour("paper"))
            plt.close(figure)
        return made

    def titled(self) -> Figure:
        """The figure as a file shows it, with its title above and its note below, as many lines as they need."""
        figure = self.draw(FILE_INCHES)
        share = figure.get_figwidth() / FILE_INCHES  # of the letters that a line of a whole width holds
        title = wrapped(self.title, round(92 * share))
        small = wrapped(" ".join(filter(None, (self.note, self.source))), round(165 * share))
        figure.suptitle(title, x=0.008, ha="left", fontsize=11.5, fontweight="bold", linespacing=1.25)
        figure.supxlabel(small, x=0.008, ha="left", fontsize=6.5, color=colour("quiet"))
        figure.set_figheight(figure.get_figheight() + 0.22 * title.count("\n") + 0.11 * small.count("\n") + 0.4)
        return figure

    def inline(self) -> list[tuple[str, str]]:
        """(class, SVG element) of each width, for the page; the texts around it are the page's own."""
        widths = [("wide", WIDE_INCHES), ("narrow", NARROW_INCHES)] if self.bends else [("", WIDE_INCHES)]
        found = []
        for name, inches in widths:
            with styled():
                figure = self.draw(inches)
                out = io.BytesIO()
                figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
                plt.close(figure)
            found.append((name, themed(out.getvalue().decode(), f"{self.name}-{name or 'wide'}", self.alt)))
        return found


def themed(svg: str, name: str, alt: str) -> str:
    """An SVG file as an element of a page: its own ids, its colours by name, a text in its place for a reader."""
    head = re.search(r'<svg[^>]*(viewBox="[^"]+")[^>]*>', svg)
    assert head is not None
    body = svg[head.end() :]
    body = re.sub(r"<(metadata|style)\b.*?</\1>", "", body, flags=re.DOTALL)  # its style would be the whole page's
    referred = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in referred else "", body)
    body = re.sub(r'(url\(#|href="#)', rf"\1{name}-", body)
    body = re.sub(r"(?<=: )#[0-9a-f]{6}", _variable, body)
    body = re.sub(r"font-family: [^;\"]*(; )?", "", body)
    body = re.sub(r' transform="rotate\(-0 [^"]*"', "", body)
    body = re.sub(r"\s+", " ", body).strip()
    return f'<svg {head[1]} role="img" aria-label="{escape(alt)}">{body}'


_NAMES = {"#d55e00": "vermilion", "#009e73": "green", **{light: name for name, (light, _) in PALETTE.items()}}


def _variable(match: re.Match) -> str:
    """A drawn colour as a variable of the page; a grey as the share of ink that it has."""
    found = match[0]
    if found in _NAMES:
        return f"var(--{_NAMES[found]})"
    red, green, blue = (int(found[i : i + 2], 16) for i in (1, 3, 5))
    if red == green == blue:
        return f"color-mix(in srgb,var(--ink) {100 - red / 2.55:.0f}%,var(--paper))"
    return found


def wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width))
