"""`python -m bench report`: the page and all else of a stored result, or of several side by side."""

import argparse
import sys
from pathlib import Path

from bench import report, store
from bench.report import side_by_side, sources
from sampler.files import writable_folder

COMPARED = store.SCRATCH / "compare"


def add_to(commands) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser("report", help="make report.html, tables, CSV and figures again from stored results")
    parser.add_argument("result", type=Path, nargs="*", help="a stored run, .json or .json.gz (default: each "
                        "machine's newest, of yours or kept); several are put side by side, never mixed")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write to (default: beside a run of yours; "
                        "of one that is kept: results/pages; of several: results/scratch/compare)")  # fmt: skip
    parser.set_defaults(do=run)


def run(arguments: argparse.Namespace) -> int:
    given: list[Path] = arguments.result
    if len(given) > 1:
        outputs = side_by_side.contents([store.load(path) for path in given])
        written = report.keep(outputs, writable_folder(arguments.out or COMPARED))
    else:
        written = []
        for path in given or ([store.newest()] if arguments.out else store.newest_of_each()):
            measurement, beside = store.load(path), sources.beside(path.parent)
            for sentence in beside.broken:
                print(f"note: not shown: {sentence}", file=sys.stderr)
            written += report.write(measurement, writable_folder(arguments.out or store.page_of(path)), beside)
    print("\n".join(map(str, written)))
    return 0
