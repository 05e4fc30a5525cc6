"""`python -m bench quality`: layer 1 over the whole path, then all pictures drawn, judged and held to their budgets."""

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from bench import environment, store
from bench.progress import Progress
from bench.quality import charts, divergence, drawing, judged, plan, tables, trial
from bench.quality.judging import judge, noise, real_test, see
from bench.quality.record import PICTURES, SAME_NOISE, Judged, Quality, load
from bench.store import write_atomically
from bench.workload import workload
from sampler import cpu
from sampler.errors import UsageError
from sampler.files import writable_folder
from sampler.models import checked_device

UNSURE_EXIT = 2  # under --strict
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
    folder = writable_folder(arguments.out / environment.machine(device) / "quality")
    path = folder / "quality.json"
    if arguments.report:
        found = load(path)
    else:
        before = load(path) if arguments.only and path.exists() else None  # refused before the work, not after it
        found = _fresh(device, samples)
        processes = arguments.processes or cpu.usable()
        with Progress() as progress:
            if arguments.only != "pictures":
                layer_1(found, device, processes, progress.say)
            if arguments.only != "same-noise":
                layer_2(found, device, samples, processes, progress.say)
        if before is not None:
            _keep_the_other_layer(found, before, arguments.only)
        write_atomically(path, found.json())
    outputs = write(found, folder)
    print(tables.terminal(found))
    print("\n" + "\n".join(map(str, [path, *outputs])))
    failed = found.failures()
    for name, reason in failed:
        print(f"FAILED {name}: {reason}", file=sys.stderr)
    return 1 if failed else UNSURE_EXIT if arguments.strict and found.unsure() else 0


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
    pictures, same_noise = ("judged", "floor", "ceiling", "trial", "power", "samples"), ("divergence", "faults")
    for name in pictures if only == "same-noise" else same_noise:
        setattr(found, name, getattr(before, name))
    found.took_s = {**before.took_s, **found.took_s}
    found.made = {**before.made, **found.made}


def layer_1(found: Quality, device: str, processes: int, say) -> None:
    """Every row that takes the reference's path, against one float64 run of it."""
    begun = time.monotonic()
    asked = workload("quick", device=device, steps=divergence.STEPS)
    divergence.compare(asked, divergence.chosen(None, device), found.divergence, found.faults, processes, say)
    found.made[SAME_NOISE] = _by(found)
    found.took_s["layer 1"] = round(time.monotonic() - begun, 1)


def layer_2(found: Quality, device: str, samples: int, processes: int, say, kept: Path = judged.STORE) -> None:
    """Draw what is missing, and judge every point, the anchors and the metric itself."""
    begun = time.monotonic()
    of = plan.of_device(device)
    points = of()
    wanted = dict(plan.wanted(samples, device))
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
    for name, point in points.items():
        say(f"judging {name}")
        those = drawn(name)
        beside = fresh if name.endswith(plan.FRESH) and name != plan.OTHER_SEEDS else reference
        figures = judge(see(those.images, those.labels), beside, samples)
        found.judged[name] = Judged(point.digest, point.path.steps, point.guidance, point.seed, those.cpu_s, figures)
    say("judging real test images and noise, and trying the metric")
    n = len(reference)
    found.floor, found.ceiling = judge(real_test(min(n, 1000)), alike=samples), judge(noise(n), alike=samples)
    found.trial, found.power = trial.hold(tried.__getitem__), trial.powers(tried.__getitem__)
    found.made[PICTURES] = _by(found)
    found.took_s["judging"] = round(time.monotonic() - begun, 1)


def write(found: Quality, folder: Path, kept: Path = judged.STORE) -> list[Path]:
    """Write the tables and the charts; the grids of samples only where the pictures are at hand."""
    outputs: dict[str, str | bytes | None] = {"quality.csv": tables.csv(found), "quality.md": tables.markdown(found)}
    if found.judged:
        outputs |= {
            "steps.csv": tables.csv(found, plan.curve()), "steps.png": charts.steps(found),
            "guidance.csv": tables.csv(found, map(plan.guidance_point, plan.GUIDANCE)),
            "guidance.png": charts.guidance(found),
        }  # fmt: skip
        outputs |= charts.grids(found, lambda point: drawing.read(point, 10, kept))
    if found.divergence:
        outputs["divergence.png"] = divergence.chart(found.divergence, tables.heading(found, SAME_NOISE))
    for name, content in outputs.items():
        if content is not None:
            write_atomically(folder / name, content)
    return [folder / name for name, content in outputs.items() if content is not None]
