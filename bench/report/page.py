"""report.html: one file that holds everything it shows and asks nothing of the network.

What is put into the templates is escaped by Jinja, figures and Markdown by their own modules. The only script that
may run is the page's own: its digest stands in the page's security policy.
"""

import base64
import hashlib
from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from bench.cost import Cost
from bench.measurement import Measurement
from bench.report import answer, cost_table, figures, markdown, method, pictures, rows_table, textbook_table, walk_view
from bench.report.sources import Beside
from bench.report.style import PALETTE, Plot
from bench.report.table import heading
from bench.tune import answer as answers
from bench.tune import front, outputs
from sampler import strict_json

SCRIPTS = ("theme.js", "table.js", "walk.js")
MOST_ABSENT = 60
MOST_DETAILED = 200  # rows, for the tables that are folded in
ELSEWHERE = f"There are more than {MOST_DETAILED} rows; this table is in `report.md`."


def html(measurement: Measurement, beside: Beside, plots: dict[str, Plot | None]) -> str:
    """The page of one result. plots: by name, as `figures.plots` gives them."""
    rows = [measurement.row(name) for name in measurement.rows]
    few, metered = len(rows) <= MOST_DETAILED, any(Cost(row).phase("steady") for row in rows)
    script = "\n".join(text(name) for name in SCRIPTS)
    return environment().get_template("report.html").render(
        tunings=[(outputs.heading(t), answers.lines(t), front.markdown(t), answers.dropped(t), outputs.code_of(t),
                  front.plot(t, f"tune-{i}")) for i, t in enumerate(beside.tunings)],
        title=title(measurement), heading=heading(measurement), where=answer.where(measurement),
        sentences=answer.sentences(measurement, beside),
        plots=plots, measurement=measurement, workload=measurement.workload,
        failed=[r for r in rows if r.status == "red"], absent=_grouped(rows),
        columns=rows_table.COLUMNS, lines=rows_table.lines(measurement, beside), row_count=len(rows),
        strips=pictures.strips(measurement), walk=walk_view.view(beside.walk),
        walk_data=None if beside.walk is None else walk_view.data(beside.walk),
        legend=rows_table.LEGEND, roof=cost_table.roof_line(measurement) if measurement.of("roof") else "",
        time_table=cost_table.time_markdown(measurement) if few else ELSEWHERE,
        cost_table=cost_table.cost_markdown(measurement) if few else ELSEWHERE,
        memory_table=cost_table.memory_markdown(measurement) if few and metered else "",
        textbook_table=textbook_table.markdown(measurement), certificate=figures.certificate(beside),
        beside=beside, palette=PALETTE, style=Markup(text("report.css")), script=Markup(script),
        policy=policy(script), method=method.facts(measurement),
        environment_rows=sorted(measurement.environment.items()),
    ) + "\n"  # fmt: skip


def title(measurement: Measurement) -> str:
    w, e = measurement.workload, measurement.environment
    return f"{w.model} on {e.get('gpu', e['cpu'])}: what makes sampling faster"


def _grouped(rows) -> list[tuple[str, list[str]]]:
    """Rows without figures by their reason."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.status in ("grey", "missing"):
            found.setdefault(row.absence, []).append(row.name)
    return [(why, names[:MOST_ABSENT] + [f"and {len(names) - MOST_ABSENT:,} more"] * (len(names) > MOST_ABSENT))
            for why, names in list(found.items())[:MOST_ABSENT]]  # fmt: skip


def policy(script: str) -> str:
    """Nothing from anywhere, no script but this one: what a hostile name could ask for is refused by the browser."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


@cache
def environment() -> Environment:
    """The templates, with every value escaped."""
    made = Environment(
        loader=PackageLoader("bench.report"), autoescape=select_autoescape(default=True), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.policies["json.dumps_function"] = strict_json.dumps
    made.filters |= {"md": markdown.inline, "blocks": markdown.blocks, "sortable": _sortable}
    return made


def _sortable(value: float | str | None) -> str:
    """A cell's value as an attribute that the script can compare."""
    return strict_json.dumps(rows_table.finite(value), ensure_ascii=False)


def text(name: str) -> str:
    return (resources.files("bench.report") / "templates" / name).read_text(encoding="utf-8")
