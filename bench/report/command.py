"""`python -m bench report`: the page and all else of a stored result, or of every machine's newest."""

import argparse
from pathlib import Path

from bench import report, store
from bench.report import sources
from sampler.files import writable_folder


def add_to(commands) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser("report", help="make report.html, tables, CSV and figures again from stored results")
    parser.add_argument(
        "result", type=Path, nargs="?", help="a results/<machine>/*.json (default: each machine's newest)"
    )
    parser.add_argument("--out", type=Path, help="folder to write to (default: beside the result)")
    parser.set_defaults(do=run)


def run(arguments: argparse.Namespace) -> int:
    results = (
        [arguments.result] if arguments.result else store.newest_of_each() if not arguments.out else [store.newest()]
    )
    for path in results:
        measurement, beside = store.load(path), sources.beside(path.parent)
        for output in report.write(measurement, writable_folder(arguments.out or path.parent), beside):
            print(output)
    return 0
