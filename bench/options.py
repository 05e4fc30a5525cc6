"""The options of a job, said once for pytest and for `python -m bench run`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.workload import PRESETS, Workload, workload
from sampler import cpu
from sampler.errors import UsageError
from sampler.own_models import HOW

OPTIONS: dict[str, dict[str, Any]] = {
    "device": {"help": "device to measure on: cpu, cuda, cuda:1 (default: cpu)"},
    "threads": {"type": int, "help": "CPU threads (default: 1; more than one waits at barriers and is noisy)"},
    "preset": {"choices": PRESETS, "default": "quick",
               "help": "smoke: does everything run (1 min); quick: intervals within 3 %% (5 min, the first time 7); "
                       "gpu: what fits beside the tests of `make gpu`; "
                       "full: every whole run, pictures judged (about 30 min) (default: quick)"},
    "batch": {"type": int, "help": "images at once (default: 4)"},
    "steps": {"type": int, "help": "steps of the reference (default: each of the model's timesteps, mostly 1000)"},
    "model": {"help": f"a shipped model, see `python -m sampler models`, or your own: {HOW} (default: fashion-mnist)"},
    "guidance": {"type": float, "help": "classifier-free guidance scale (default: 3; 1, none, without labels)"},
    "budget": {"type": float, "metavar": "SECONDS",
               "help": "seconds for everything that is timed: pairs, other batch sizes, whole runs (default: "
                       f"{Workload.budget_s:g}, or the preset's; quick: up to a third less where building takes long)"},
}  # fmt: skip

# for every command that keeps results: `arguments.out or store.home(workload)`
OUT: dict[str, Any] = {
    "type": Path, "metavar": "DIR",
    "help": "results folder (default: results/local in the checkout, ./results where there is none; below it scratch "
            "for preset smoke, models/MODEL for another model)",
}  # fmt: skip


def add_options(add: Callable[..., Any], prefix: str, taken: tuple[str, ...] = ()) -> None:
    """Add the options through argparse's or pytest's `add`."""
    for name, how in OPTIONS.items():
        if name not in taken:
            add(prefix + name, **how)


def from_options(options: argparse.Namespace) -> Workload:
    """The workload that parsed options ask for."""
    given = {name: getattr(options, name) for name in OPTIONS if name != "preset"}
    budget = given.pop("budget")
    if (given.get("threads") or 1) > (cpus := cpu.usable()):
        raise UsageError(f"threads = {given['threads']} is more than {cpus}, the CPUs that may be used here")
    return workload(options.preset, budget_s=budget, **given)
