"""The table on a terminal, while a run fills it and when it is done: colours by verdict, as wide as there is room.

Where the output is no terminal `table.terminal` writes the same in plain text.
"""

import math
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.contenders import REFERENCE
from bench.cost import Cost
from bench.measurement import Measurement, Row
from bench.report.table import _mib, _number, heading, quality_in_short, shown, terminal

# heading, and from how many characters a line on there is room for it
COLUMNS = (
    ("row", 0), ("speed-up [95 %]", 0), ("±", 52), ("pairs", 62), ("ms/step", 72), ("pictures", 96), ("first s", 108),
    ("MiB", 118),
)  # fmt: skip
BAR = 12  # characters of the bar that narrows with the interval
BAR_FROM = 84  # characters a line


def show(measurement: Measurement) -> None:
    """Print the finished table: coloured on a terminal, plain elsewhere."""
    if not sys.stdout.isatty():
        print(terminal(measurement))
        return
    console = Console(highlight=False)
    console.print(heading(measurement), style="dim")
    console.print(table(measurement, console.width))


def table(measurement: Measurement, width: int) -> Table:
    """Every row as far as it is known by now."""
    picked = [i for i, (_, least) in enumerate(COLUMNS) if width >= least]
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for i in picked:
        made.add_column(COLUMNS[i][0], justify="left" if i == 0 else "right", no_wrap=True, overflow="ellipsis")
    if width >= BAR_FROM:
        made.add_column("", no_wrap=True)
    for name in measurement.rows:
        row = measurement.row(name)
        if row.status == "grey":
            continue  # cannot run here: the page and the plain table say why
        cells = _cells(row)
        line = [cells[i] for i in picked]
        made.add_row(*line, *([_bar(row)] if width >= BAR_FROM else []))
    return made


def _cells(row: Row) -> list[Text]:
    """In the order of COLUMNS; what is not known yet is a dot."""
    style, sign = look(row)
    name = Text(f"{sign} {row.name}", style)
    if row.status == "red":
        return [name, Text("failed", "red"), *[Text("")] * 6]
    wait = Text("·", "dim")
    if row.name == REFERENCE:
        speed, spread = Text("1", "dim"), Text("")
    elif row.speedup is None:
        speed = spread = wait
    else:
        speed, half = Text(shown(row.speedup).replace(" [no interval: one process]", ""), style), row.speedup.half_width
        spread = wait if math.isnan(half) else Text(f"{half:.1%}", "yellow" if row.needs_longer else "")
    first, steady = row.first_call_s, Cost(row).phase("steady")
    return [
        name, speed, spread, Text(f"{len(row.pairs):,}") if row.pairs else wait,
        wait if row.step_ms is None else Text(_number(row.step_ms, ".2f")), Text(quality_in_short(row), "dim"),
        wait if first is None else Text(f"{first[0]:.2f}"),
        wait if steady is None else Text(_number(_mib(steady["live_peak"]), ".1f")),
    ]  # fmt: skip


def look(row: Row) -> tuple[str, str]:
    """Colour and sign of a row: the sign says without colour what the colour says."""
    if row.status == "red":
        return "red", "✗"
    if row.name == REFERENCE or row.speedup is None:
        return "", "·"
    if row.amber:
        return "yellow", "?"  # its pictures are not shown to be good enough
    if row.speedup.low > 1:
        return "green", "+"
    return ("magenta", "-") if row.speedup.high < 1 else ("", "=")


def _bar(row: Row) -> Text:
    """The interval's half width as a bar that shrinks: full at 12 % and more, empty at 0."""
    half = math.nan if row.speedup is None or row.name == REFERENCE else row.speedup.half_width
    if row.status != "ok" or math.isnan(half):
        return Text("")
    filled = min(BAR, round(half * 100))
    return Text("━" * filled, "yellow" if row.needs_longer else "green")
