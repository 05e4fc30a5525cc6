"""`python -m bench memory`: the memory report alone, without timing anything."""

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bench import store, strict_csv
from bench.cost import Cost
from bench.measurement import Measurement
from bench.memory import PHASES, human
from bench.options import OPTIONS, OUT
from bench.progress import Progress
from bench.report import cost_table, memory_chart
from bench.report.table import heading
from bench.run import look
from bench.store import write_atomically
from bench.workload import workload
from sampler.errors import UsageError
from sampler.files import writable_folder

LOOKS = ("first_call", "scaling")
ASKED = ("device", "threads", "batch", "steps", "model", "guidance")  # of the job's options


def add_to(commands) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser("memory", help="what each row holds in memory, by phase and part; times nothing")
    for name in ASKED:
        parser.add_argument("--" + name, **OPTIONS[name])
    parser.add_argument("--rows", metavar="A,B", help="only these rows (and the reference)")
    parser.add_argument("--within", type=float, metavar="MIB",
                        help="foresee the largest batch within so much, and try it")  # fmt: skip
    parser.add_argument("--memory-snapshot", type=Path, metavar="DIR",
                        help="CUDA: also keep the allocator's history, for pytorch.org/memory_viz")  # fmt: skip
    parser.add_argument("--out", **OUT)
    parser.set_defaults(do=run)


def run(arguments: argparse.Namespace) -> int:
    asked = workload("quick", **{name: getattr(arguments, name) for name in ASKED})
    looks, task = list(LOOKS), {}
    if arguments.within is not None:
        if not arguments.within > 0:
            raise UsageError(f"within = {arguments.within:g} MiB; it must be positive")
        looks.append("attempt")
        task["within"] = arguments.within * 2**20
    if arguments.memory_snapshot is not None:
        if torch.device(asked.device).type != "cuda":
            raise UsageError("--memory-snapshot needs a CUDA device; on a CPU, memory.png shows the timeline")
        task["snapshot"] = str(writable_folder(arguments.memory_snapshot).resolve())
        looks = ["start_snapshot", *looks, "keep_snapshot"]
    results = writable_folder(arguments.out or store.home(asked))
    rows = arguments.rows.split(",") if arguments.rows else None
    with Progress() as progress:
        measurement = look(asked, rows, looks, progress.say, "python -m bench " + " ".join(sys.argv[1:]), **task)
    outputs = keep(measurement, results)
    print(terminal(measurement))
    print("\n" + "\n".join(map(str, outputs)))
    if measurement.interrupted:
        print("interrupted: what was metered until then is kept", file=sys.stderr)
        return 130
    failed = [(e["row"], e["message"]) for e in measurement.of("error") + measurement.of("died")]
    for name, reason in failed:
        print(f"FAILED {name}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def keep(measurement: Measurement, results: Path) -> list[Path]:
    """Write results/<machine>/memory/: the raw events, memory.csv, memory.md and memory.png; returns the paths."""
    raw = store.save(measurement, results, "memory")
    outputs: dict[str, str | bytes] = {
        "memory.csv": strict_csv.dumps(frame(measurement)),
        "memory.md": f"{heading(measurement)}\n\n{cost_table.memory_markdown(measurement)}",
    }
    if (chart := memory_chart.parts(measurement)) is not None:
        outputs["memory.png"] = chart.png()
    for name, content in outputs.items():
        write_atomically(raw.parent / name, content)
    return [raw, *(raw.parent / name for name in outputs)]


def frame(measurement: Measurement) -> pd.DataFrame:
    """One line a row and phase, in bytes; a row that has none keeps a line with its reason."""
    lines = []
    for name in measurement.rows:
        cost = Cost(measurement.row(name))
        found: list[tuple[str | None, Any]] = [(phase, event) for phase in PHASES if (event := cost.phase(phase))]
        fit, tried = cost.fit, cost.attempt
        shared = {
            "row": name, "batch": measurement.workload.batch,
            "fixed_bytes": fit and fit.fixed, "an_image_bytes": fit and fit.per_image,
            "a_step_bytes": cost.per_step_bytes, "fit_error": fit and fit.error,
            "largest_batch_foreseen": cost.largest_batch,
            "tried_batch": tried and tried["batch"], "tried_peak_bytes": tried and tried["peak"],
            "reason": cost.row.reason,
        }  # fmt: skip
        for phase, event in found or [(None, None)]:
            levels = {} if event is None else {
                "live_peak_bytes": event["live_peak"], "live_after_bytes": event["live_after"],
                "held_peak_bytes": event["held"], "graph_pools_bytes": event["graph_pools"],
                "driver_bytes": event["driver"],
                **{f"{part.replace(' ', '_')}_bytes": size for part, size in event["parts"].items()},
            }  # fmt: skip
            lines.append({"phase": phase, **levels, **shared})
    columns = ["row", "phase", *(c for line in lines for c in line if c not in ("row", "phase"))]
    return pd.DataFrame(lines)[list(dict.fromkeys(columns))]


def terminal(measurement: Measurement) -> str:
    """The steady state of each row and how it grows, narrow enough for 120 columns."""
    head = ("row", "weights", "first call", "steady: live", "held", "fixed + an image + a step", "largest batch")
    lines: list[tuple[str, ...]] = [head]
    for name in measurement.rows:
        cost = Cost(measurement.row(name))
        phases = [cost.phase(phase) for phase in PHASES]
        if not any(phases):
            lines.append((name, cost.row.reason or "not inspected"))
            continue
        live = [human(None if e is None else e["live_peak"]) for e in phases]
        held = human(None if phases[-1] is None else phases[-1]["held"])
        cells = cost_table.memory_cells(cost)
        lines.append((name, *live, held, cells[-3].split(" (")[0], cells[-2]))
    widths = [max(len(line[i]) for line in lines if len(line) == len(head)) for i in range(len(head))]
    text = [heading(measurement), ""]
    for line in lines:
        if len(line) == 2:
            text.append(f"{line[0]:<{widths[0]}}  {line[1]}")
        else:
            text.append("  ".join(c.ljust(w) if not i else c.rjust(w)
                                  for i, (c, w) in enumerate(zip(line, widths, strict=True))))  # fmt: skip
    for event in measurement.of("attempt"):
        text.append(
            f"{event['row']}: within {human(event['within'])}, a batch of {event['batch']:,} was foreseen to take "
            f"{human(event['foreseen'])} and took {human(event['peak'])}"
        )
    return "\n".join(text)
