"""`python -m bench divergence`: how far each row leaves a float64 run of the same sampler, at every timestep.

The rows that claim to be the same sampler with other rounding, and those in half precision: layer 1 of quality.
"""

import argparse
import math
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench import environment, png_file, store, strict_csv
from bench.contenders import CONTENDERS, full_path
from bench.options import OPTIONS, OUT
from bench.progress import Progress
from bench.quality.drawing import begin_process
from bench.quality.same_noise import Divergence, SameNoise
from bench.store import write_atomically
from bench.workload import Workload, workload
from sampler import cpu, strict_json
from sampler.errors import UsageError, in_one_line, unknown
from sampler.files import writable_folder
from sampler.models import load_model
from sampler.variants import build

ASKED = ("device", "threads", "batch", "steps", "model", "guidance")
STEPS = 250  # of 1,000 spaced timesteps: all rows take some two minutes of one core
HELP = f"steps of the path, 1…1000 (default: {STEPS})"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#999999")


def add_to(commands) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "divergence", help="how far each row leaves a float64 run on the same noise, step by step",
        epilog="Exit codes: 0 every row within its bound; 1 a row outside it, or that raised; 3 a mistake; "
        "130 interrupted.",
    )  # fmt: skip
    for name in ASKED:
        parser.add_argument("--" + name, **{**OPTIONS[name], **({"help": HELP} if name == "steps" else {})})
    parser.add_argument("--rows", metavar="A,B", help="only these rows")
    parser.add_argument("--out", **OUT)
    parser.set_defaults(do=run)


def run(arguments: argparse.Namespace) -> int:
    asked = workload("quick", **{name: getattr(arguments, name) for name in ASKED if name != "steps"},
                     steps=STEPS if arguments.steps is None else arguments.steps)  # fmt: skip
    results = writable_folder(arguments.out or store.home(asked))
    started, begin_s = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), time.monotonic()
    found: dict[str, Divergence] = {}
    wrong: dict[str, str] = {}
    interrupted = False
    with Progress() as progress:
        try:
            compare(asked, chosen(arguments.rows, asked.device), found, wrong, cpu.usable(), progress.say)
        except KeyboardInterrupt:
            interrupted = True
    if not found:
        print("interrupted before the first row was compared" if interrupted else "no row could be compared",
              file=sys.stderr)  # fmt: skip
        return 130 if interrupted else 1
    commit, dirty = environment.commit()
    heading = (
        f"{asked.model}, batch {asked.batch}, {asked.steps} steps, guidance {asked.guidance:g}; "
        f"{environment.machine(asked.device)}; PyTorch {torch.__version__}; "
        f"commit {commit}{'-dirty' * dirty}; {started}"
    )
    raw = {"heading": heading, "command": "python -m bench " + " ".join(sys.argv[1:]), "workload": asked.json(),
           "environment": environment.fingerprint(asked.device), "took_s": round(time.monotonic() - begin_s, 1),
           "rows": {name: one.json() for name, one in found.items()}, "errors": wrong}  # fmt: skip
    folder = results / environment.machine(asked.device) / "divergence"
    outputs: dict[str, str | bytes] = {
        "divergence.json": strict_json.dumps(raw),
        "divergence.csv": strict_csv.dumps(frame(found)),
        "divergence.md": f"{heading}\n\n{markdown(found, wrong)}",
        "divergence.png": chart(found, heading),
    }
    for name, content in outputs.items():
        write_atomically(folder / name, content)
    print(markdown(found, wrong))
    print("\n".join(str(folder / name) for name in outputs))
    if interrupted:
        print("interrupted: what was compared until then is kept", file=sys.stderr)
        return 130
    return 1 if wrong or any(one.fault for one in found.values()) else 0


def chosen(rows: str | None, device: str) -> list[str]:
    """The rows that take the whole path by the sampler, and can run on the device; or those asked for."""
    able = [n for n, c in CONTENDERS.items() if c.path is full_path and not c.textbook and not c.unavailable(device)]
    if rows is None:
        return able
    for name in rows.split(","):
        if name not in CONTENDERS:
            raise unknown("row", name, CONTENDERS)
        if name not in able:
            why = CONTENDERS[name].unavailable(device) or "it takes other steps, so there is nothing to compare by step"
            raise UsageError(f"row {name!r} cannot be compared here: {why}")
    return rows.split(",")


def compare(
    asked: Workload, rows: list[str], found: dict[str, Divergence], wrong: dict[str, str], processes: int = 1,
    say=lambda text: None,
) -> None:  # fmt: skip
    """Fill `found` with each row's divergence; a row that raises goes to `wrong` with its message.

    Rows that share a truth and a reference stay together; with more than one process, groups are done side by side.
    """
    groups: dict[Any, list[str]] = {}
    for name in rows:
        variant = CONTENDERS[name].variant
        groups.setdefault((variant.precision, variant.guided_between), []).append(name)
    if processes == 1 or len(groups) == 1 or torch.device(asked.device).type != "cpu":
        _compare(asked, rows, found, wrong, say)
        return
    context, done = multiprocessing.get_context("spawn"), 0
    pool = ProcessPoolExecutor(min(processes, len(groups)), context, initializer=begin_process)
    try:
        work = [pool.submit(_in_a_process, asked, group) for group in sorted(groups.values(), key=len, reverse=True)]
        for future in as_completed(work):
            some, faults = future.result()
            done += len(some) + len(faults)
            found.update(some)
            wrong.update(faults)
            say(f"{done} of {len(rows)} rows compared")
    except BrokenProcessPool:
        raise UsageError(
            "a process that compares rows was ended from outside; the same command does it again"
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for name in [n for n in rows if n in found]:  # in the order asked for
            found[name] = found.pop(name)


def _in_a_process(asked: Workload, rows: list[str]) -> tuple[dict[str, Divergence], dict[str, str]]:
    found: dict[str, Divergence] = {}
    wrong: dict[str, str] = {}
    _compare(asked, rows, found, wrong, lambda text: None)
    return found, wrong


def _compare(asked: Workload, rows: list[str], found: dict[str, Divergence], wrong: dict[str, str], say) -> None:
    torch.set_num_threads(asked.threads)
    model = load_model(asked.model, asked.device)
    condition = model.condition(torch.arange(asked.batch) % model.classes) if model.classes else None
    guidance = asked.guidance if condition is not None else 1.0
    same_noise = SameNoise(model, condition, guidance, asked.batch, asked.seed)
    path = full_path(model, asked.steps)
    for i, name in enumerate(rows):
        say(f"{name}, row {i + 1} of {len(rows)}")
        try:
            sampler = build(CONTENDERS[name].variant, model.network, condition, guidance)
            found[name] = same_noise.divergence(sampler, path, full_path(model, asked.steps))
        except Exception as error:  # any fault of a row is that row's
            wrong[name] = in_one_line(error)
            say(f"{name} failed: {wrong[name]}")


def frame(found: dict[str, Divergence]) -> pd.DataFrame:
    """One line a row and timestep; RMS errors in units of the pictures' range [-1, 1]."""
    return pd.concat(
        pd.DataFrame({"row": name, "timestep": one.timesteps, "error": one.error, "reference_error": one.own,
                      "floor": one.floor, "bound": one.bounds})
        for name, one in found.items()
    )  # fmt: skip


def markdown(found: dict[str, Divergence], wrong: dict[str, str]) -> str:
    """A line a row: its error in the end and at its worst, as shares of the bound."""
    lines = ["| row | error in the end | reference's own | largest share of the bound | same bits | verdict |",
             "| --- | ---: | ---: | ---: | --- | --- |"]  # fmt: skip
    for name, one in found.items():
        share = max(error / bound for error, bound in zip(one.error, one.bounds, strict=True))
        verdict = one.fault or "same sample, other rounding"
        bits = "yes" if one.same_bits else "no"
        lines.append(f"| {name} | {one.error[-1]:.1e} | {one.own[-1]:.1e} | {share:.2f} | {bits} | {verdict} |")
    lines += [f"| {name} | – | – | – | – | FAILED: {message} |" for name, message in wrong.items()]
    return "\n".join(
        [*lines, "", "RMS of the difference from a float64 run on the same noise, pictures in [-1, 1].", ""]
    )


def chart(found: dict[str, Divergence], heading: str) -> bytes:
    """`draw` as a PNG file's bytes."""
    figure = draw(found, 11)
    figure.suptitle(
        "How far each row leaves a float64 run on the same noise", x=0.01, ha="left", fontsize=12, fontweight="bold"
    )
    figure.axes[0].set_title(heading.replace("$", "\\$"), loc="left", fontsize=6.5, color="0.3")
    made = png_file.of(figure, dpi=130)
    plt.close(figure)
    return made


def draw(found: dict[str, Divergence], inches: float) -> Figure:
    """Error against timestep, one line a row."""
    narrow = inches < 6
    below = 0.17 * -(-len(found) // 2) + 0.6 if narrow else 0.0  # inches for the names, which hide lines on a phone
    figure, axes = plt.subplots(figsize=(inches, min(6.0, 0.55 * inches + 1) + below), layout="constrained")
    for i, (name, one) in enumerate(found.items()):
        style = ("-", "--", ":")[i // len(COLOURS) % 3]
        error = [e if e > 0 else float("nan") for e in one.error]
        axes.plot(one.timesteps, error, style, color=COLOURS[i % len(COLOURS)], linewidth=1.3, label=name)
    axes.axhline(1 / 255, color="0.6", linewidth=0.8)
    axes.text(1, 1 / 255, "half a grey level", fontsize=7, color="0.4", va="bottom", ha="right",
              transform=axes.get_yaxis_transform())  # fmt: skip
    axes.set(yscale="log", xlabel="timestep (time runs to the right)",
             ylabel="RMS error against float64" + ("" if narrow else ", pictures in [-1, 1]"))  # fmt: skip
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
    axes.invert_xaxis()
    if narrow:
        figure.legend(frameon=False, fontsize="small", ncols=2, loc="outside lower center")
    else:
        axes.legend(frameon=False, fontsize="small", ncols=2)
    return figure


def _power(value: float) -> str:
    """A power of ten as text, which is the same where formulas are not set; 0 has none, and is where no row errs."""
    if value <= 0:
        return "0"
    return "10" + str(round(math.log10(value))).translate(RAISED)
