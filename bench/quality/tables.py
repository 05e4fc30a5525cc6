"""The quality tables: every figure as CSV; what the rows lose, the curves and the trial as Markdown. Rounds here."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from bench import strict_csv
from bench.contenders import CONTENDERS
from bench.quality import divergence, plan
from bench.quality.equivalence import JUDGED_FROM, LOSSES, NOT_JUDGED, UNSURE, Loss
from bench.quality.judging import Figures
from bench.quality.record import Quality
from sampler.data import CLASSES

# what the textbook says of a technique's quality impact, by the rows that test it
CLAIMS = {"textbook": "best", "textbook-strided": "noticeable", "strided": "noticeable", "ddim": "minimal",
          "compiled": "none", "autocast-bf16": "minimal", "cast-bf16": "minimal", "autocast-fp16": "minimal",
          "cast-fp16": "minimal"}  # fmt: skip
IN_SHORT = (
    "textbook",
    "textbook-strided",
    "ddim",
    "compiled",
    "autocast-bf16",
    "limited-guidance",
    "all-few-steps",
    "all-together",
)  # those that the run has judged


def csv(found: Quality, points: Iterable[str] | None = None) -> str:
    """One line a point (by default every one) at full precision, the floor and the ceiling after them."""
    lines = []
    for name in found.judged if points is None else points:
        j = found.judged[name]
        lines.append({"point": name, "sampler": name.rsplit("-", 1)[0] if name in plan.curve() else None,
                      "steps": j.steps, "guidance": j.guidance, "seed": j.seed, "cpu_s": j.cpu_s, "digest": j.digest,
                      **_record(j.figures), **_rated(found, name)})  # fmt: skip
    lines += [{"point": name, **_record(figures)} for name, figures in _ends(found).items()]
    return strict_csv.dumps(pd.DataFrame(lines))


def _ends(found: Quality) -> dict[str, Figures]:
    """The floor and the ceiling of every table."""
    ends = {"real test images (floor)": found.floor, "noise (ceiling)": found.ceiling}
    return {name: figures for name, figures in ends.items() if figures}


def _record(figures: Figures) -> dict[str, Any]:
    low, high = figures.accuracy.interval
    record: dict[str, Any] = {
        "pictures": figures.pictures, **_bounds("kernel_distance", figures.kernel),
        "label_accuracy": figures.accuracy.value, "label_accuracy_low": low, "label_accuracy_high": high,
        "diversity": figures.diversity, "pictures_of_the_next_four": figures.alike, "frechet": figures.frechet,
        "precision": figures.precision, "recall": figures.recall, "classifier_score": figures.score,
        "strangeness": figures.strangeness,
        "worst_label": None if figures.worst_label is None else CLASSES[figures.worst_label[0]],
        "worst_label_accuracy": None if figures.worst_label is None else figures.worst_label[1],
        "strangest_label": None if figures.strangest_label is None else CLASSES[figures.strangest_label[0]],
        "strangest_label_strangeness": None if figures.strangest_label is None else figures.strangest_label[1],
    }  # fmt: skip
    for name, loss in figures.losses.items():
        record |= _bounds(f"{name}_lost", loss)
    return record


def _rated(found: Quality, point: str) -> dict[str, Any]:
    """How raters graded a point, if any did."""
    if point not in found.by_eye:
        return {}
    rated = found.by_eye[point]
    low, high = rated.faults.interval
    return {"rated": rated.pictures, "raters": rated.raters, "faulty": rated.faults.value, "faulty_low": low,
            "faulty_high": high, "broken": rated.broken_share.value}  # fmt: skip


def _bounds(name: str, loss: Loss) -> dict[str, float]:
    low, high = loss.interval
    return {name: loss.value, f"{name}_low": low, f"{name}_high": high}


def markdown(found: Quality) -> str:
    parts = [f"# Quality\n\n{heading(found)}"]
    if found.judged:
        parts += [rows(found), *([curve(found), guided(found)] if found.whole else []), tried(found)]
    if found.divergence:
        parts.append(same_noise(found))
    return "\n\n".join(parts) + "\n"


def heading(found: Quality, layer: str = "") -> str:
    """Of which model and machine, by which commit, and what it took; or of one layer alone, without the last."""
    e = found.environment
    where = e.get("gpu", f"{e['cpu']} ({e['cpu_capability']}, {e['cpus']} CPUs)")
    made = "; ".join(f"{name}: {by}" for name, by in found.made.items() if layer in ("", name))
    of_what = f"{plan.MODEL}, guidance {plan.SCALE:g}; {where}; {made}"
    if layer:
        return of_what
    took = ", ".join(f"{part} {seconds / 60:.1f} min" for part, seconds in found.took_s.items())
    cpu_min = sum(j.cpu_s for j in found.judged.values()) / 60
    drawing = f"; all pictures together took {cpu_min:.0f} CPU minutes to draw" if found.judged else ""
    return f"{of_what}; took: {took}{drawing}."


def anchors(found: Quality) -> str:
    """The sentence that gives a figure its meaning."""
    reference, seeds, damaged = (found.judged[n].figures for n in (plan.REFERENCE, plan.OTHER_SEEDS, plan.DAMAGED))
    return (
        f"N pictures a row, at the same seeds and labels as the reference's; brackets: 95 %. Fréchet: of the first "
        f"{reference.alike}, since its bias depends on N. The reference is at {shown(reference.kernel)} (Fréchet "
        f"{reference.frechet:.2f}, N = {reference.pictures}). {floor_and_ceiling(found)} Of kernel distance, label "
        f"accuracy, diversity within a label and strangeness, the reference with *other seeds* loses {lost(seeds)} "
        f"(N = {seeds.pictures}), *25 of 1,000 ancestral steps* lose {lost(damaged)} (N = {damaged.pictures})."
    )


def floor_and_ceiling(found: Quality) -> str:
    floor, ceiling = found.floor, found.ceiling
    assert floor is not None
    assert ceiling is not None
    return (
        f"Kernel distance to real training images: **floor** {shown(floor.kernel)} (real test images, "
        f"N = {floor.pictures}; Fréchet of {floor.alike}: {floor.frechet:.2f}), **ceiling** {shown(ceiling.kernel)} "
        f"(noise, N = {ceiling.pictures}; Fréchet of {ceiling.alike}: {ceiling.frechet:.2f})."
    )


def rows(found: Quality) -> str:
    """What each row of the speed table does to the pictures, beside what the textbook says of it."""
    head = ("row", "textbook says", "N", "kernel distance lost", "label accuracy lost", "diversity lost",
            "stranger by", "by eye: faulty, broken", "worst label", "Fréchet", "budget", "verdict", "at fresh seeds",
            "about its time on plain steps loses")  # fmt: skip
    lines = []
    for name, contender in CONTENDERS.items():
        drawn, same = plan.rows(found.device).get(name), _same(found, name)
        claim = CLAIMS.get(name, "–")
        if drawn is not None and drawn.point in found.judged:
            f, budget, control = found.judged[drawn.point].figures, contender.budget, found.judged.get(drawn.control)
            lines.append([
                name, claim, str(f.pictures), *_lost(f), _by_eye(found, drawn.point), _worst(f), _frechet(found, f),
                same or ("none stated" if budget is None else " / ".join(f"{getattr(budget, x):.3g}" for x in LOSSES)),
                _verdict(found, name), _fresh(found, name),
                "–" if control is None else f"{shown(control.figures.losses['kernel'])} ({control.steps:,} steps)",
            ])  # fmt: skip
        elif same:
            lines.append([name, claim, *["–"] * 8, same, _verdict(found, name), "–", "–"])
    reasons = dict.fromkeys(f"{c.budget.reason} ({c.budget.measured})" for c in CONTENDERS.values() if c.budget)
    return "\n".join([
        "## What each row does to the pictures", "", *table(head, lines), "", anchors(found), "",
        "A row is EQUIVALENT where every difference is inside its budget on both sides (95 %), NO WORSE where only the "
        "side of the loss is shown, and WORSE where the lower bound of a loss is beyond its budget. Otherwise it is "
        f"{UNSURE}. Of fewer than {JUDGED_FROM} pictures, or without strangeness, it is {NOT_JUDGED}. A margin's own "
        "error counts. By eye: graded blind, raters' grades averaged. Fresh seeds: seed 1, on which nothing was "
        "chosen. The budgets: " + "; ".join(reasons) + ". A row that promises nothing is judged by the same budget, "
        "and is not red for it. The reference's pictures are drawn by batched guidance in a compiled step; `compiled` "
        "shows what drawing the same noise without the compiler loses against them." + _left_out(found),
    ])  # fmt: skip


def _left_out(found: Quality) -> str:
    """What was not drawn on this machine, and what was taken over from what ships."""
    absent = "".join(f" {name}: {why}." for name, why in found.left_out.items())
    taken = "".join(f" {name}: pictures that ship, {why}." for name, why in found.adopted.items())
    return absent + taken


def claimed(found: Quality) -> str:
    """In short: what the textbook says of its techniques, in its order, and of what is best here, and what it costs."""
    head = ("row", "textbook says", "N", "kernel distance lost", "label accuracy lost", "diversity lost", "stranger by",
            "by eye: faulty, broken", "verdict", "at fresh seeds")  # fmt: skip
    lines = []
    for name in IN_SHORT:
        drawn = plan.rows(found.device).get(name)
        if drawn is None or drawn.point not in found.judged:
            continue
        f = found.judged[drawn.point].figures
        lines.append(
            [
                name,
                CLAIMS.get(name, "–"),
                str(f.pictures),
                *_lost(f),
                _by_eye(found, drawn.point),
                _verdict(found, name),
                _fresh(found, name),
            ]
        )
    best = [best_sentence(found)] if found.whole else []
    return "\n".join([*table(head, lines), "", floor_and_ceiling(found), *best])


def _frechet(found: Quality, figures: Figures) -> str:
    """Only where it is of as many pictures as the reference's."""
    return f"{figures.frechet:.2f}" if figures.alike == found.judged[plan.REFERENCE].figures.alike else "–"


def _lost(figures: Figures) -> list[str]:
    """Every loss with its interval; what an older result has not measured is a dash."""
    return [shown(figures.losses[name]) if name in figures.losses else "–" for name in LOSSES]


def _worst(figures: Figures) -> str:
    """The label that is recognised least."""
    if figures.worst_label is None:
        return "–"
    label, share = figures.worst_label
    return f"{CLASSES[label]} {share:.0%}"


def _by_eye(found: Quality, point: str) -> str:
    """How many of a point's pictures raters found faulty or broken, and of how many."""
    if point not in found.by_eye:
        return "–"
    rated = found.by_eye[point]
    low, high = rated.faults.interval
    return f"{rated.faults.value:.0%} [{low:.0%}, {high:.0%}], {rated.broken_share.value:.1%} of {rated.pictures}"


def _fresh(found: Quality, row: str) -> str:
    """The verdict by pictures of fresh seeds, where some were drawn."""
    verdict, why = found.fresh(row)
    return verdict if verdict and "not drawn" not in why else "–"


def _same(found: Quality, row: str) -> str:
    """What a row that claims to change no picture is held to, and how far off it was; '' for others."""
    if row not in found.divergence or not CONTENDERS[row].lossless:
        return ""
    d = found.divergence[row]
    return "rounding: " + ("the reference's bits" if d.same_bits else f"off float64 by {d.error[-1]:.1e} at the end")


def _verdict(found: Quality, row: str) -> str:
    if row in found.divergence and (found.divergence[row].fault or CONTENDERS[row].lossless):
        return "FAILED" if found.divergence[row].fault else "same"
    return found.verdict(row)[0] or ("–" if row == "reference" else "reported only")


def curve(found: Quality) -> str:
    columns = ("N", "kernel distance", "label accuracy")
    head = ("steps", *(f"{s}: {what}" for s in plan.SAMPLERS for what in columns))
    lines = []
    for steps in plan.STEPS:
        line = [f"{steps:,}"]
        for sampler in plan.SAMPLERS:
            f = found.judged[f"{sampler}-{steps}"].figures
            line += [str(f.pictures), shown(f.kernel), _accuracy(f)]
        lines.append(line)
    lines += [[name, str(f.pictures), shown(f.kernel), _accuracy(f), *["–"] * 6] for name, f in _ends(found).items()]
    same = "DDIM with η = 1 is ancestral sampling, the same table, and has no column."
    return "\n".join(["## Steps", "", "![Quality against steps](steps.png)", "", *table(head, lines), "", same])


def best_scale(found: Quality) -> tuple[float, list[float]]:
    """The guidance scale of the least kernel distance, and the others that lie within its 95 % interval."""
    kernel = {s: found.judged[plan.guidance_point(s)].figures.kernel for s in plan.GUIDANCE}
    best = min(kernel, key=lambda s: kernel[s].value)
    high = kernel[best].interval[1]
    return best, [s for s in kernel if s != best and kernel[s].value <= high]


def guided(found: Quality) -> str:
    head = ("scale", "N", "label accuracy", "diversity", "kernel distance", "Fréchet", "precision", "recall")
    lines = []
    of_scale = {f"{s:g}": found.judged[plan.guidance_point(s)].figures for s in plan.GUIDANCE}
    for scale, f in {**of_scale, **_ends(found)}.items():
        lines.append([scale, str(f.pictures), _accuracy(f), f"{f.diversity:.2f}", shown(f.kernel), f"{f.frechet:.2f}",
                      f"{f.precision:.2f}", f"{f.recall:.2f}"])  # fmt: skip
    return "\n".join(["## Guidance", "", "![Label accuracy against diversity](guidance.png)", "", *table(head, lines),
                      "", best_sentence(found)])  # fmt: skip


def best_sentence(found: Quality) -> str:
    best, near = best_scale(found)
    others = f"; {', '.join(f'{s:g}' for s in near)} cannot be told from it" if near else ""
    return (f"Best scale: **{best:g}**, of the least kernel distance to real images at {plan.GUIDANCE_STEPS} ancestral "
            f"steps{others}.")  # fmt: skip


def tried(found: Quality) -> str:
    lines = [[t.name, t.must, t.verdict, *(shown(t.losses[loss]) if loss in t.losses else "–" for loss in LOSSES),
              "yes" if t.right else "**NO**"] for t in found.trial]  # fmt: skip
    head = (
        "set",
        "must be",
        "is",
        "kernel distance lost",
        "label accuracy lost",
        "diversity lost",
        "stranger by",
        "right",
    )
    return "\n".join([
        "## The metric on trial", "", *table(head, lines), "",
        f"N = {found.trial[0].losses['kernel'].pictures}, against the budget of rows that keep their steps; sets of 50 "
        "and 100 steps against that of rows that take fewer. How often it judges rightly, by N, over sets drawn anew "
        "from these:", "",
        *table(("N", "25 steps rejected", "limited DDIM rejected", "other seeds accepted"),
               [[f"{p.pictures:,}", f"{p.rejected:.0%}", "–" if p.strange is None else f"{p.strange:.0%}",
                 f"{p.accepted:.0%}"] for p in found.power]),
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
    return " / ".join(_lost(figures))


def shown(loss: Loss) -> str:
    low, high = loss.interval
    return f"{loss.value:.3f} [{low:.3f}, {high:.3f}]"


def _accuracy(figures: Figures) -> str:
    low, high = figures.accuracy.interval
    return f"{figures.accuracy.value:.1%} [{low:.0%}, {high:.0%}]"


def table(head, lines) -> list[str]:
    return ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *("| " + " | ".join(r) + " |" for r in lines)]
