"""The quality tables: every figure as CSV; what the rows lose, the curves and the trial as Markdown. Rounds here."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from bench.contenders import CONTENDERS
from bench.quality import divergence, plan, trial
from bench.quality.equivalence import LOSSES, UNSURE, Loss
from bench.quality.judging import Figures
from bench.quality.record import Quality

# what the textbook says of a technique's quality impact, by the rows that test it
CLAIMS = {"textbook": "best", "textbook-strided": "noticeable", "strided": "noticeable", "ddim": "minimal",
          "compiled": "none", "autocast-bf16": "minimal", "cast-bf16": "minimal", "autocast-fp16": "minimal",
          "cast-fp16": "minimal"}  # fmt: skip
POWER_AT = (50, 100, 200, 400, 1000)


def csv(found: Quality, points: Iterable[str] | None = None) -> str:
    """One line a point (by default every one) at full precision, the floor and the ceiling after them."""
    lines = []
    for name in found.judged if points is None else points:
        j = found.judged[name]
        lines.append({"point": name, "sampler": name.rsplit("-", 1)[0] if name in plan.curve() else None,
                      "steps": j.steps, "guidance": j.guidance, "seed": j.seed, "cpu_s": j.cpu_s, "digest": j.digest,
                      **_record(j.figures)})  # fmt: skip
    lines += [{"point": name, **_record(figures)} for name, figures in _ends(found).items()]
    return pd.DataFrame(lines).to_csv(index=False)


def _ends(found: Quality) -> dict[str, Figures]:
    """The floor and the ceiling of every table."""
    ends = {"real test images (floor)": found.floor, "noise (ceiling)": found.ceiling}
    return {name: figures for name, figures in ends.items() if figures}


def _record(figures: Figures) -> dict[str, Any]:
    low, high = figures.accuracy.interval
    record: dict[str, Any] = {
        "pictures": figures.pictures, **_bounds("kernel_distance", figures.kernel), "frechet": figures.frechet,
        "precision": figures.precision, "recall": figures.recall, "label_accuracy": figures.accuracy.value,
        "label_accuracy_low": low, "label_accuracy_high": high, "classifier_score": figures.score,
        "diversity": figures.diversity,
    }  # fmt: skip
    for name, loss in figures.losses.items():
        record |= _bounds(f"{name}_lost", loss)
    return record


def _bounds(name: str, loss: Loss) -> dict[str, float]:
    low, high = loss.interval
    return {name: loss.value, f"{name}_low": low, f"{name}_high": high}


def markdown(found: Quality) -> str:
    parts = [f"# Quality\n\n{heading(found)}"]
    if found.judged:
        parts += [rows(found), curve(found), guided(found), tried(found)]
    if found.divergence:
        parts.append(same_noise(found))
    return "\n\n".join(parts) + "\n"


def heading(found: Quality) -> str:
    e = found.environment
    where = e.get("gpu", f"{e['cpu']} ({e['cpu_capability']}, {e['cpus']} CPUs)")
    took = ", ".join(f"{part} {seconds / 60:.1f} min" for part, seconds in found.took_s.items())
    cpu_min = sum(j.cpu_s for j in found.judged.values()) / 60
    drawing = f"; all pictures together took {cpu_min:.0f} CPU minutes to draw" if found.judged else ""
    return (
        f"{plan.MODEL}, guidance {plan.SCALE:g}; {where}; PyTorch {e['torch']}; commit {e['commit']}"
        f"{' with uncommitted changes' if e['dirty'] else ''}; {found.started}; `{found.command}`; "
        f"took: {took}{drawing}."
    )


def anchors(found: Quality) -> str:
    """The sentence that gives a figure its meaning."""
    assert found.floor is not None
    assert found.ceiling is not None
    reference, seeds, damaged = (found.judged[n].figures for n in (plan.REFERENCE, plan.OTHER_SEEDS, plan.DAMAGED))
    return (
        f"N = {reference.pictures} pictures a row, the same seeds and labels as the reference's; brackets: 95 %. "
        f"Kernel distance to real training images: **floor** {shown(found.floor.kernel)} (real test images), reference "
        f"{shown(reference.kernel)}, **ceiling** {shown(found.ceiling.kernel)} (noise). Of kernel distance, label "
        f"accuracy and diversity within a label, the reference with *other seeds* loses {lost(seeds)}, *25 of 1,000 "
        f"ancestral steps* lose {lost(damaged)}."
    )


def rows(found: Quality) -> str:
    """What each row of the speed table does to the pictures, beside what the textbook says of it."""
    head = ("row", "textbook says", "kernel distance lost", "label accuracy lost", "diversity lost", "Fréchet",
            "budget", "verdict", "its time on plain steps would lose")  # fmt: skip
    lines = []
    for name, contender in CONTENDERS.items():
        drawn = plan.rows(found.device).get(name)
        if drawn is not None and drawn.point in found.judged:
            f, budget = found.judged[drawn.point].figures, contender.budget
            control = found.judged.get(drawn.control)
            lines.append([
                name, CLAIMS.get(name, "–"), *(shown(f.losses[loss]) for loss in LOSSES), f"{f.frechet:.2f}",
                "none stated" if budget is None else " / ".join(f"{getattr(budget, loss):g}" for loss in LOSSES),
                found.verdict(name)[0] or ("–" if name == "reference" else "reported only"),
                "–" if control is None else f"{shown(control.figures.losses['kernel'])} ({control.steps} steps)",
            ])  # fmt: skip
        elif name in found.divergence and contender.lossless:
            d = found.divergence[name]
            same = "the reference's bits" if d.same_bits else f"the same pictures: off by {d.error[-1]:.1e} at the end"
            lines.append([name, CLAIMS.get(name, "–"), same, "–", "–", "–", "rounding", "FAILED" if d.fault else "same",
                          "–"])  # fmt: skip
    reasons = dict.fromkeys(f"{c.budget.reason} ({c.budget.measured})" for c in CONTENDERS.values() if c.budget)
    return "\n".join([
        "## What each row does to the pictures", "", *table(head, lines), "", anchors(found), "",
        "A row is EQUIVALENT where the 95 % upper bound of every loss is inside its budget, WORSE where the lower "
        f"bound of one is beyond it, else {UNSURE}. The budgets: " + "; ".join(reasons) + ".",
    ])  # fmt: skip


def curve(found: Quality) -> str:
    head = ("steps", *(f"{s}: {what}" for s in plan.SAMPLERS for what in ("kernel distance", "label accuracy")))
    lines = []
    for steps in plan.STEPS:
        line = [f"{steps:,}"]
        for sampler in plan.SAMPLERS:
            f = found.judged[f"{sampler}-{steps}"].figures
            line += [shown(f.kernel), _accuracy(f)]
        lines.append(line)
    lines += [[name, shown(f.kernel), _accuracy(f), *["–"] * 4] for name, f in _ends(found).items()]
    same = "DDIM with η = 1 is ancestral sampling, the same table, and has no column."
    return "\n".join(["## Steps", "", "![Quality against steps](steps.png)", "", *table(head, lines), "", same])


def best_scale(found: Quality) -> tuple[float, list[float]]:
    """The guidance scale of the least kernel distance, and the others that lie within its 95 % interval."""
    kernel = {s: found.judged[plan.guidance_point(s)].figures.kernel for s in plan.GUIDANCE}
    best = min(kernel, key=lambda s: kernel[s].value)
    high = kernel[best].interval[1]
    return best, [s for s in kernel if s != best and kernel[s].value <= high]


def guided(found: Quality) -> str:
    head = ("scale", "label accuracy", "diversity", "kernel distance", "Fréchet", "precision", "recall")
    lines = []
    of_scale = {f"{s:g}": found.judged[plan.guidance_point(s)].figures for s in plan.GUIDANCE}
    for scale, f in {**of_scale, **_ends(found)}.items():
        lines.append([scale, _accuracy(f), f"{f.diversity:.2f}", shown(f.kernel), f"{f.frechet:.2f}",
                      f"{f.precision:.2f}", f"{f.recall:.2f}"])  # fmt: skip
    return "\n".join(["## Guidance", "", "![Label accuracy against diversity](guidance.png)", "", *table(head, lines),
                      "", best_sentence(found)])  # fmt: skip


def best_sentence(found: Quality) -> str:
    best, near = best_scale(found)
    others = f"; {', '.join(f'{s:g}' for s in near)} cannot be told from it" if near else ""
    return (f"Best scale: **{best:g}**, of the least kernel distance to real images at {plan.GUIDANCE_STEPS} ancestral "
            f"steps{others}.")  # fmt: skip


def tried(found: Quality) -> str:
    lines = [[t.name, "WORSE" if t.bad else "EQUIVALENT", t.verdict, *(shown(t.losses[loss]) for loss in LOSSES),
              "yes" if t.right else "**NO**"] for t in found.trial]  # fmt: skip
    head = ("set", "must be", "is", "kernel distance lost", "label accuracy lost", "diversity lost", "right")
    powers = [[str(n), *(f"{p:.0%}" for p in trial.power(found.trial, n))] for n in POWER_AT]
    n = found.trial[0].losses["kernel"].pictures
    return "\n".join([
        "## The metric on trial", "", *table(head, lines), "",
        f"N = {n}, against the budget of rows that keep their steps. With other N (from the standard errors found "
        "here, by the normal approximation):", "",
        *table(("N", "25 steps rejected by kernel distance alone", "what loses nothing accepted"), powers),
    ])  # fmt: skip


def same_noise(found: Quality) -> str:
    return "\n".join([
        "## The same noise", "", "![Divergence from float64](divergence.png)", "",
        divergence.markdown(found.divergence, found.faults),
        "The bound: twice (half precision: three times) what the reference errs in the row's precision, and how far "
        "the reference moves when the last bit of every step's numbers is changed.",
    ])  # fmt: skip


def terminal(found: Quality) -> str:
    """One line a row, in plain text."""
    lines = [heading(found), ""]
    for name in CONTENDERS:
        if name in found.divergence and CONTENDERS[name].lossless:
            d = found.divergence[name]
            lines.append(f"{name:<18} same noise: {d.fault or ('the same bits' if d.same_bits else 'same sample')}")
        drawn = plan.rows(found.device).get(name)
        if drawn is not None and drawn.point in found.judged and name != "reference":
            verdict, why = found.verdict(name)
            f = found.judged[drawn.point].figures
            lines.append(f"{name:<18} {verdict or 'reported':<11} loses {lost(f)}" + (f"  ({why})" if why else ""))
    if found.trial:
        wrong = [t.name for t in found.trial if not t.right]
        lines += ["", f"the metric's trial: {'failed on ' + ', '.join(wrong) if wrong else 'every set judged rightly'}"]
    return "\n".join(lines)


def lost(figures: Figures) -> str:
    return " / ".join(shown(figures.losses[name]) for name in LOSSES)


def shown(loss: Loss) -> str:
    low, high = loss.interval
    return f"{loss.value:.3f} [{low:.3f}, {high:.3f}]"


def _accuracy(figures: Figures) -> str:
    low, high = figures.accuracy.interval
    return f"{figures.accuracy.value:.1%} [{low:.0%}, {high:.0%}]"


def table(head, lines) -> list[str]:
    return ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *("| " + " | ".join(r) + " |" for r in lines)]
