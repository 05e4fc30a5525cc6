"""What is made from a stored tuning: the answer, the table, the plot and the code, each from what is stored alone."""

from pathlib import Path

from bench import strict_csv
from bench.store import write_atomically
from bench.tune import answer, front, paste
from bench.tune.record import Tuning

HOW = "The table's speed-ups and intervals come from the race's pairs (valid whenever looked at), those of a shorter "\
      "path from the finals. A confirmed answer's come from the fresh processes of race and finals together (on a "\
      "shorter path: of the finals alone), each gives one value."  # fmt: skip


def contents(tuning: Tuning) -> dict[str, str | bytes]:
    """Every output by the ending that its name has."""
    found: dict[str, str | bytes] = {".md": markdown(tuning), ".csv": strict_csv.dumps(front.frame(tuning))}
    if (plot := front.plot(tuning)) is not None:
        found[".png"] = plot.png()
    return found


def write(tuning: Tuning, folder: Path, name: str) -> list[Path]:
    """The tuning itself and what is made from it, under the name of the question; returns the paths."""
    outputs = {".json": tuning.json(), **contents(tuning)}
    for ending, content in outputs.items():
        write_atomically(folder / f"{name}{ending}", content)
    return [folder / f"{name}{ending}" for ending in outputs]


def heading(tuning: Tuning) -> str:
    w, e = tuning.asked.workload, tuning.environment
    return (f"{w.model}, batch {w.batch}, quality {tuning.asked.quality}, {w.device}, {w.threads} thread"
            f"{'s' * (w.threads != 1)}; {e.get('gpu', e['cpu'])} {e['cpu_capability']}, PyTorch {e['torch']}, commit "
            f"{e['commit']}{' + uncommitted changes' if e['dirty'] else ''}, {tuning.started}; "
            f"{tuning.took_s:.0f} s, seed {w.seed}")  # fmt: skip


def markdown(tuning: Tuning) -> str:
    """The whole of it."""
    parts = ["# What should I turn on?", heading(tuning), "\n".join(f"- {line}" for line in answer.lines(tuning)), HOW,
             front.markdown(tuning)]  # fmt: skip
    if out := answer.dropped(tuning):
        parts += ["## Who is out, and why", "\n".join(f"- {row}: {why}" for row, why in out)]
    return "\n\n".join([*parts, code(tuning)]) + "\n"


def code_of(tuning: Tuning) -> list[tuple[str, str]]:
    """What can be pasted: (what it is, the source); nothing where the choice is no combination of seams."""
    if tuning.seams is None:
        return []
    w, choice = tuning.asked.workload, tuning.choice
    found = [("The variant, for sampler.sample(…, variant=…)", paste.variant(choice)),
             ("The command that measures it again", paste.measured_again(tuning.asked, choice))]  # fmt: skip
    if plain := paste.plain(choice, paste.known_of(w), w.device):
        found.append(("In plain PyTorch, for a network that is called as this model’s is", plain.rstrip()))
    return found


def code(tuning: Tuning) -> str:
    """The same in Markdown."""
    parts = [f"{what}:\n\n```{'' if source.startswith('python -m') else 'python'}\n{source}\n```"
             for what, source in code_of(tuning)]  # fmt: skip
    return "\n\n".join(["## To paste", *parts]) if parts else ""
