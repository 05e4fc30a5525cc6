"""The Markdown that other parts of the report are written in, as elements of the page; every character is escaped."""

import re
from html import escape, unescape

from markupsafe import Markup


def inline(text: str) -> Markup:
    """One line: **strong** and `code`, nothing else."""
    safe = escape(unescape(text.replace("\\|", "|")))
    safe = re.sub(r"\[(-?[\d.]+), (-?[\d.]+)\]", "[\\1,\N{NO-BREAK SPACE}\\2]", safe)  # an interval is not torn
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", safe))


def blocks(text: str, label: str) -> Markup:
    """Headings, paragraphs and tables. label: what the tables are called where they scroll."""
    made = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = block.splitlines()
        if lines and lines[0].startswith("|"):
            made.append(_table(lines, label))
        elif match := re.match(r"#+ (.*)", block):
            made.append(f"<h4>{inline(match[1])}</h4>")
        elif block.strip():
            made.append(f"<p>{inline(' '.join(lines))}</p>")
    return Markup("\n".join(made))


def _table(lines: list[str], label: str) -> str:
    head, rule, *rows = (_cells(line) for line in lines)
    right = [cell.strip().endswith(":") for cell in rule]

    def line(cells: list[str], tag: str) -> str:
        made = []
        for i, cell in enumerate(cells):
            numbers = ' class="n"' if i < len(right) and right[i] else ""
            made.append(f"<{tag}{numbers}>{inline(cell)}</{tag}>")
        return f"<tr>{''.join(made)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return (f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}"><table><thead>'
            f"{line(head, 'th')}</thead><tbody>{body}</tbody></table></div>")  # fmt: skip


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
