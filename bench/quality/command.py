"""`python -m bench quality`: layer 1 over the whole path, then all pictures drawn, judged and held to their budgets."""

import argparse
import secrets
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from bench import environment, store
from bench.contenders import CONTENDERS
from bench.progress import Progress
from bench.quality import blind, charts, divergence, drawing, judged, plan, tables, trial
from bench.quality.judging import judge, noise, real_test, see
from bench.quality.record import PICTURES, SAME_NOISE, Judged, Quality, load
from bench.store import write_atomically
from bench.workload import workload
from sampler import cpu
from sampler.data import CLASSES
from sampler.errors import UsageError
from sampler.files import writable_folder
from sampler.models import checked_device

UNSURE_EXIT = 2  # under --strict
RATED = 200  # pictures of each row on the blind sheets
LAYERS = ("same-noise", "pictures")


def add_to(commands) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "quality", help="draw and judge the pictures of every row that changes them, and compare the others value by "
                        "value; resumable, nothing is drawn twice")  # fmt: skip
    parser.add_argument("--samples", type=int, metavar="N",
                        help=f"pictures a point, in tens (default: {plan.SAMPLES}; on CUDA {plan.SAMPLES_CUDA:,}); on "
                             f"a CPU {plan.MORE} times as many where they decide or cost little")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="device to draw on (%(default)s)")
    parser.add_argument("--processes", type=int, metavar="P", help="that work at once on a CPU (default: its cores)")
    parser.add_argument("--only", choices=LAYERS, help="one layer alone (default: both)")
    eye = parser.add_argument_group("by eye", "pictures graded by people, who see neither row nor metric")
    eye.add_argument("--blind", type=Path, metavar="DIR",
                     help=f"write shuffled sheets of the first {RATED} pictures of each row, a table to fill in and "
                          "the key, from the pictures that are kept")  # fmt: skip
    eye.add_argument("--grades", type=Path, nargs="+", metavar="FILE",
                     help="tables that were filled in, one a rater: add their column to the result")  # fmt: skip
    eye.add_argument("--key", type=Path, metavar="FILE",
                     help="of those sheets (default: key.json beside the first table)")  # fmt: skip
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="judge these rows alone, without the curves of steps "
                        "and guidance; what was found of others is kept (default: every row)")  # fmt: skip
    parser.add_argument("--report", action="store_true", help="only make the tables and charts again, from the result")
    parser.add_argument("--strict", action="store_true", help=f"exit {UNSURE_EXIT} where a row is UNSURE")
    parser.add_argument("--out", type=Path, default=store.RESULTS, metavar="DIR", help="results folder (%(default)s)")
    parser.set_defaults(do=run)


def run(arguments: argparse.Namespace) -> int:
    device = arguments.device
    checked_device(device)
    samples = arguments.samples or (plan.SAMPLES if torch.device(device).type == "cpu" else plan.SAMPLES_CUDA)
    if samples < 50 or samples % 10:
        raise UsageError(f"samples = {samples}; a multiple of ten from 50 on is needed, or nothing can be said")
    if arguments.blind is not None:
        return sheets(arguments.blind, device)
    folder = writable_folder(arguments.out / environment.machine(device) / "quality")
    path = folder / "quality.json"
    if arguments.grades:
        found = load(store.stored(path))
        grade(found, arguments.grades, arguments.key or arguments.grades[0].parent / blind.KEY)
        write_atomically(path, found.json())
    elif arguments.report:
        found = load(store.stored(path))
    else:
        some, part = arguments.rows, arguments.only or ("pictures" if arguments.rows else None)
        if some and part != "pictures":
            raise UsageError("--rows chooses whose pictures are judged; the layer of the same noise has no such choice")
        wanted = None if some is None else plan.of_rows(some, torch.device(device).type)
        before = load(path) if part and path.exists() else None  # refused before the work, not after it
        found = _fresh(device, samples)
        processes = arguments.processes or cpu.usable()
        with Progress() as progress:
            if part != "pictures":
                layer_1(found, device, processes, progress.say)
            if part != "same-noise":
                layer_2(found, device, samples, processes, progress.say, wanted)
        if before is not None and part is not None:
            _keep_the_other_layer(found, before, part)
            if wanted is not None:
                _keep_the_other_points(found, before, some)
        write_atomically(path, found.json())
    outputs = write(found, folder)
    print(tables.terminal(found))
    print("\n" + "\n".join(map(str, [path, *outputs])))
    failed = found.failures()
    for name, reason in failed:
        print(f"FAILED {name}: {reason}", file=sys.stderr)
    return 1 if failed else UNSURE_EXIT if arguments.strict and found.unsure() else 0


def sheets(folder: Path, device: str, kept: Path = judged.STORE) -> int:
    """Write blind sheets of the pictures of every row that is held to a budget, and of the reference's."""
    points, shown = plan.points(device), dict[str, torch.Tensor]()
    for row, of_row in plan.rows(device).items():
        asked = row == "reference" or CONTENDERS[row].budget is not None
        those = drawing.read(points[of_row.point], RATED, kept) if asked else None
        if those is not None:
            shown[of_row.point] = those.images
    if plan.REFERENCE not in shown or len(shown) < 2:
        raise UsageError(f"{RATED} pictures of the reference and of another row are needed, and {kept} does not hold "
                         "them; first run: python -m bench quality")  # fmt: skip
    written = blind.write(shown, torch.arange(RATED) % len(CLASSES), CLASSES, folder, seed=secrets.randbits(32))
    meaning = "\n".join(f"  {grade}  {text}" for grade, text in blind.MEANING.items())
    print(f"{len(shown) * RATED:,} pictures of {len(shown)} sets on {len(written) - 2} sheets in {folder}.\n"
          f"Fill in the third column of {blind.GRADES}, without opening {blind.KEY}:\n{meaning}\n"
          f"Then: python -m bench quality --grades {folder / blind.GRADES}")  # fmt: skip
    return 0


def grade(found: Quality, tables_of: list[Path], key: Path) -> None:
    """Add how raters graded what `sheets` wrote."""
    raters = [blind.read(table, key) for table in tables_of]
    by_eye = blind.summed(raters, plan.REFERENCE)
    if strange := [point for point in by_eye if point not in found.judged]:
        raise UsageError(f"{key} knows pictures of {', '.join(strange)}, which this result has not judged")
    found.by_eye |= by_eye


def _fresh(device: str, samples: int) -> Quality:
    if torch.device(device).type == "cpu":
        torch.set_num_threads(1)
    started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    command = "python -m bench " + " ".join(sys.argv[1:])
    return Quality(environment.fingerprint(device), started, command, samples)


def _by(found: Quality) -> str:
    """What a layer was made by: a result may hold one of a run before."""
    e = found.environment
    dirty = " with uncommitted changes" if e["dirty"] else ""
    return f"commit {e['commit']}{dirty}, PyTorch {e['torch']}, {found.started}, `{found.command}`"


def _keep_the_other_layer(found: Quality, before: Quality, only: str) -> None:
    same_noise = ("divergence", "faults")
    pictures = ("judged", "floor", "ceiling", "trial", "power", "samples", "left_out", "adopted", "by_eye")
    for name in pictures if only == "same-noise" else same_noise:
        setattr(found, name, getattr(before, name))
    found.took_s = {**before.took_s, **found.took_s}
    found.made = {**before.made, **found.made}


def _keep_the_other_points(found: Quality, before: Quality, rows: list[str]) -> None:
    others = {name: one for name, one in before.judged.items() if name not in found.judged}
    if not others:
        return
    found.judged |= others
    for part in ("left_out", "adopted", "by_eye"):
        kept = {name: one for name, one in getattr(before, part).items() if name in others or part == "left_out"}
        setattr(found, part, {**kept, **getattr(found, part)})
    found.made[PICTURES] += f" ({', '.join(rows)} and the anchors); the others: {before.made[PICTURES]}"


def layer_1(found: Quality, device: str, processes: int, say) -> None:
    """Every row that takes the reference's path, against one float64 run of it."""
    begun = time.monotonic()
    asked = workload("quick", device=device, steps=divergence.STEPS)
    divergence.compare(asked, divergence.chosen(None, device), found.divergence, found.faults, processes, say)
    found.made[SAME_NOISE] = _by(found)
    found.took_s["layer 1"] = round(time.monotonic() - begun, 1)


def layer_2(
    found: Quality, device: str, samples: int, processes: int, say, names: set[str] | None = None,
    kept: Path = judged.STORE,
) -> None:  # fmt: skip
    """Draw what is missing, and judge every point (or those of these names), the anchors and the metric itself."""
    begun = time.monotonic()
    of = plan.of_device(device)
    points = of()
    wanted = {name: n for name, n in plan.wanted(samples, device) if names is None or name in names}
    found.left_out = {name: why for name, why in plan.left_out(device).items() if names is None or name in names}
    found.adopted = trial.adopt(of, wanted, kept, processes, say)
    drawing.draw(of, list(wanted.items()), kept, processes, say)
    found.took_s["drawing"] = round(time.monotonic() - begun, 1)
    begun = time.monotonic()

    def drawn(name: str) -> drawing.Drawn:
        those = drawing.read(points[name], wanted[name], kept)
        if those is None:
            raise UsageError(f"pictures of {name} vanished from {kept}")
        return those

    tried = {name: see(those.images, those.labels)
             for name, point in trial.SHIPPED.items() for those in [drawn(point)]}  # fmt: skip
    reference, fresh = tried["reference"], tried["other seeds"]
    for name in wanted:
        say(f"judging {name}")
        point, those = points[name], drawn(name)
        beside = fresh if name.endswith(plan.FRESH) and name != plan.OTHER_SEEDS else reference
        figures = judge(see(those.images, those.labels), beside, samples)
        found.judged[name] = Judged(point.digest, point.path.steps, point.guidance, point.seed, those.cpu_s, figures)
    say("judging real test images and noise, and trying the metric")
    n = len(reference)
    found.floor, found.ceiling = judge(real_test(min(n, 1000)), alike=samples), judge(noise(n), alike=samples)
    found.trial, found.power = trial.hold(tried.__getitem__), trial.powers(tried.__getitem__)
    if torch.device(device).type == "cpu":
        rated = blind.summed(blind.shipped(), "reference")
        found.by_eye = {trial.SHIPPED[name]: by_eye for name, by_eye in rated.items()}
    found.made[PICTURES] = _by(found)
    found.took_s["judging"] = round(time.monotonic() - begun, 1)


def write(found: Quality, folder: Path, kept: Path = judged.STORE) -> list[Path]:
    """Write the tables and the charts; the grids of samples only where the pictures are at hand."""
    outputs: dict[str, str | bytes | None] = {"quality.csv": tables.csv(found), "quality.md": tables.markdown(found)}
    if found.judged and found.whole:
        outputs |= {
            "steps.csv": tables.csv(found, plan.curve()), "steps.png": charts.steps(found),
            "guidance.csv": tables.csv(found, map(plan.guidance_point, plan.GUIDANCE)),
            "guidance.png": charts.guidance(found),
        }  # fmt: skip
    if found.judged:
        outputs |= charts.grids(found, lambda point: drawing.read(point, 10, kept))
        outputs["samples_strangest.png"] = charts.strangest(found, lambda point, n: drawing.read(point, n, kept))
    if found.divergence:
        outputs["divergence.png"] = divergence.chart(found.divergence, tables.heading(found, SAME_NOISE))
    for name, content in outputs.items():
        if content is not None:
            write_atomically(folder / name, content)
    return [folder / name for name, content in outputs.items() if content is not None]
