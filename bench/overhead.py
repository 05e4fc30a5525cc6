"""`python -m bench overhead`: what counting and telemetry cost the timed slices, measured A/B on one network.

Arm B is arm A with its network calls counted as in a run and the telemetry read around every slice. Slices alternate
in an order drawn by a coin, as everywhere here; the interval is Student's t over blocks of pairs.
"""

import argparse
import gc
import math
import random
from dataclasses import replace

import torch

from bench.clock import clock_for
from bench.contenders import CONTENDERS, REFERENCE, Contender
from bench.interleave import Arm, Stage
from bench.students_t import Interval, midmean, ratio_interval
from bench.tally import Tally
from bench.telemetry import telemetry_for
from bench.worker import COUNTED
from bench.workload import Workload, workload
from sampler import strict_json
from sampler.errors import UsageError, unknown
from sampler.models import load_model

BLOCKS = 10
ALLOWED = 0.01  # of a slice's time


def add_to(commands) -> None:
    parser = commands.add_parser("overhead", help="what the evidence and the telemetry cost the timed slices, A/B")
    parser.add_argument("--device", default="cpu", help="device to measure on (%(default)s)")
    parser.add_argument("--row", default=REFERENCE, help="whose slices (%(default)s)")
    parser.add_argument("--pairs", type=int, default=400, help="pairs of slices (%(default)s)")
    parser.set_defaults(do=run)


def run(arguments: argparse.Namespace) -> int:
    asked = workload("quick", device=arguments.device)
    if arguments.row not in CONTENDERS:
        raise unknown("row", arguments.row, CONTENDERS)
    if why := CONTENDERS[arguments.row].unavailable(asked.device):
        raise UsageError(f"row {arguments.row!r} cannot run here: {why}")
    cost = measure(asked, CONTENDERS[arguments.row], max(BLOCKS, arguments.pairs))
    shown = {"percent": (cost.value - 1) * 100, "low": (cost.low - 1) * 100, "high": (cost.high - 1) * 100}
    print(f"counting and telemetry cost a timed slice {shown['percent']:+.2f} % "
          f"[{shown['low']:+.2f}, {shown['high']:+.2f}] (allowed: {ALLOWED:.0%})")  # fmt: skip
    print(strict_json.dumps(shown))
    return 0 if cost.high - 1 <= ALLOWED else 1  # shown to be no more, not merely not shown to be more


def measure(asked: Workload, contender: Contender, pairs: int) -> Interval:
    """(time with) / (time without) of a contender's slices, with its interval."""
    torch.set_num_threads(asked.threads)
    model = load_model(asked.model, asked.device)
    clock, telemetry, rng = clock_for(asked.device), telemetry_for(model.device), random.Random(asked.seed)
    tally = Tally(model.network, torch.cuda.CUDAGraph if model.device.type == "cuda" else None, COUNTED)
    stage = Stage(asked, model, asked.batch)
    plain = stage.arm(contender)
    stage.first_call_s(plain)
    noise = plain.noise(1, asked.batch)
    plain.warm_for(plain.time_slice(stage.x, noise, clock, rng)[1])
    watched = replace(plain, tally=tally)  # the same tensors at the same places

    def slice_s(arm: Arm) -> float:
        if arm is plain:
            tally.rest()
            return arm.time_slice(stage.x, noise, clock, rng)[0]
        before = telemetry.sample()
        seconds, wall_s = arm.time_slice(stage.x, noise, clock, rng, telemetry.while_busy)
        telemetry.between(before, telemetry.sample(), wall_s)
        return seconds

    for arm in (plain, watched):
        slice_s(arm)
    gc.collect()
    gc.disable()  # as while timing
    logs: list[float] = []
    for _ in range(pairs):
        order = [plain, watched] if rng.random() < 0.5 else [watched, plain]
        seconds = {id(arm): slice_s(arm) for arm in order}
        logs.append(math.log(seconds[id(watched)] / seconds[id(plain)]))
    gc.enable()
    size = len(logs) // BLOCKS
    return ratio_interval([midmean(logs[i * size : (i + 1) * size]) for i in range(BLOCKS)])
