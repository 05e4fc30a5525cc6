"""`python -m bench peers`: our loops and other implementations', interleaved in one measurement, and their table."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from bench import store
from bench.measurement import Measurement, Row
from bench.options import OPTIONS, OUT
from bench.peers import CONTENDERS as OTHERS
from bench.peers import COUNTERPARTS, OURS, PEERS
from bench.progress import Progress
from bench.report.table import heading
from bench.run import measure
from bench.store import write_atomically
from bench.students_t import Interval
from bench.workload import Workload, workload
from sampler.files import writable_folder

ASKED = ("device", "threads", "batch", "model", "patience")  # of the job's options
ROWS = tuple(name for names in OURS.values() for name in names)
ONLY_GUIDED = ("batched-cfg", "ddim-batched")
GUIDANCE, BUDGET_S = (1.0, 3.0), 90.0


def add_to(commands) -> None:
    parser = commands.add_parser("peers", help="our loops beside diffusers', denoising-diffusion-pytorch's and azula's")
    for name in ASKED:
        parser.add_argument("--" + name, **OPTIONS[name])
    parser.add_argument("--guidance", type=float, help="only with this scale (default: once without, once with 3)")
    parser.add_argument("--preset", choices=("smoke", "quick", "full"), default="quick", help="(default: %(default)s)")
    parser.add_argument("--budget", type=float, default=BUDGET_S, metavar="SECONDS",
                        help="seconds of timing for each scale (%(default)s)")  # fmt: skip
    parser.add_argument("--out", **OUT)
    parser.set_defaults(do=run)


def run(arguments: argparse.Namespace) -> int:
    scales = GUIDANCE if arguments.guidance is None else (arguments.guidance,)
    given = {name: getattr(arguments, name) for name in ASKED}
    given["patience_s"] = given.pop("patience")
    asked = [workload(arguments.preset, guidance=scale, budget_s=arguments.budget, **given) for scale in scales]
    results = writable_folder(arguments.out or store.home(asked[0]))
    made = []
    for one in asked:
        with Progress() as progress:
            made.append(beside_peers(one, progress.say, "python -m bench " + " ".join(sys.argv[1:])))
        if made[-1].interrupted:
            break
    paths = keep(made, results)
    print(paths[-1].read_text())
    print("\n".join(map(str, paths)))
    failed = [(r.name, r.reason) for m in made for r in map(m.row, m.rows) if r.status in ("red", "missing")]
    for name, reason in failed:
        print(f"FAILED {name}: {reason}", file=sys.stderr)
    return 130 if made[-1].interrupted else 1 if failed else 0


def beside_peers(asked: Workload, say=lambda text: None, command: str = "python -m bench peers") -> Measurement:
    """Our rows and the peers', measured together; pictures are compared on the same noise, not judged."""
    ours = [name for name in ROWS if asked.guidance != 1 or name not in ONLY_GUIDED]
    return measure(replace(asked, quality_s=0.0), [*ours, *PEERS], say, command, plant="bench.peers")


def keep(made: list[Measurement], results: Path) -> list[Path]:
    """Write results/<machine>/peers/: the raw events of each scale, and peers.md; returns the paths."""
    paths = [store.save(m, results, f"peers/guidance-{m.workload.guidance:g}") for m in made]
    written = store.folder(made[0], results) / "peers" / "peers.md"
    write_atomically(written, page(made))
    return [*paths, written]


def page(made: list[Measurement]) -> str:
    """What peers.md holds: every peer in short, then the table of each scale."""
    return "\n".join([in_short(made), "", *map(markdown, made)])


def counterpart(measurement: Measurement, peer: str) -> Row:
    """Our plain row that takes the same steps as a peer and guides as it does."""
    guided, unguided = COUNTERPARTS[peer]
    return measurement.row(unguided if measurement.workload.guidance == 1 else guided)


def fastest(measurement: Measurement, peer: str) -> Row:
    """Our fastest row that takes the same steps as a peer and draws the same picture, of those that were measured."""
    path = next(c.path for c in OTHERS if c.name == peer)
    ours = [measurement.row(name) for name in OURS[path]]
    sound = [row for row in ours if row.status == "ok" and row.speedup is not None]
    return max(sound, key=lambda row: row.speedup.value, default=ours[0])  # type: ignore[union-attr]


def times_as_fast(ours: Row, theirs: Row) -> Interval | None:
    """How many times as fast our step is as theirs; None where one of them was not measured."""
    return ours.ratio_over(theirs, whole=False)


AHEAD = "our loop that guides alike: times as fast | our fastest of as many steps: times as fast"
DIFFERS = "picture differs by at most"


def in_short(made: list[Measurement]) -> str:
    """The peers alone, a line each and scale: what the README shows."""
    lines = [f"| loop | guidance | {AHEAD} | {DIFFERS} |", "| --- | ---: | ---: | ---: | ---: |"]
    for name in PEERS:
        for row in (m.row(name) for m in made if name in m.rows):
            cells = [*_ahead(row), _differs(row)] if row.status == "ok" else ["–", "–", row.absence]
            lines.append(f"| {name} | {row.measurement.workload.guidance:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def markdown(measurement: Measurement) -> str:
    """The table of one measurement: ours first, then each peer with how many times as fast we are."""
    lines = [
        f"**Beside other implementations, {_guidance(measurement)}.** {heading(measurement)}", "",
        f"| loop | ms/step | steps | {AHEAD} | {DIFFERS} |", "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for row in map(measurement.row, measurement.rows):
        if row.status != "ok":
            lines.append(f"| {row.name} | – | – | – | – | {row.absence} |")
            continue
        alike, best = _ahead(row) if row.name in PEERS else ("–", "–")
        lines.append(f"| {row.name} | {row.step_ms:.2f} | {row.steps:,} | {alike} | {best} | {_differs(row)} |")
    return "\n".join([*lines, ""])


def _ahead(peer: Row) -> tuple[str, str]:
    """How many times as fast as a peer our loop is that guides alike, and our fastest of as many steps."""
    ours = counterpart(peer.measurement, peer.name), fastest(peer.measurement, peer.name)
    alike, best = (f"{row.name}: {_shown(times_as_fast(row, peer))}" for row in ours)
    return alike, best


def _differs(row: Row) -> str:
    return "–" if row.probe_error is None else f"{row.probe_error:.1e}"


def _guidance(measurement: Measurement) -> str:
    scale = measurement.workload.guidance
    return "without guidance" if scale == 1 else f"guidance {scale:g}"


def _shown(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
