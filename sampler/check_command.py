"""`python -m sampler check`: what a model is, and whether a sampler can use it."""

import argparse
from collections.abc import Callable

from sampler import own_models, strict_json
from sampler.model_check import check
from sampler.models import load_model


def run_check(arguments: argparse.Namespace) -> None:
    """Build a model, call it a dozen times on noise, and say what it is or why no sampler could use it."""
    facts = check(load_model(arguments.model, arguments.device))
    if arguments.json:
        print("\n" + strict_json.dumps(facts.json()))  # on a line of its own, whatever the factory prints
        return
    channels, height, width = facts.shape
    labels = "no labels"
    if facts.classes:
        labels = f"{facts.classes:,} labels, " + ("and one for none" if facts.guidable else "none for 'no label'")
    print(
        f"{facts.name}: {facts.parameters:,} parameters, {channels}×{height}×{width}, predicts {facts.prediction}, "
        f"{facts.timesteps:,} timesteps, {labels}"
    )
    for note in facts.notes:
        print(f"note: {note}")


def add_to(command: Callable) -> None:
    add = command("check", run_check, "python -m sampler check --model my_models.py:make").add_argument
    add("--model", required=True, help=f"a shipped model, or your own: {own_models.HOW}")
    add("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    add("--json", action="store_true", help="for a program to read")
