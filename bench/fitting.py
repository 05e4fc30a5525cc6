"""Which rows make sense for a model: one that would do what another does, or what its loop cannot, is left out."""

from bench.contenders import CONTENDERS, REFERENCE, Contender
from bench.workload import Workload
from sampler import precision


def unfit(contender: Contender, workload: Workload) -> str:
    """Why a row says nothing about this workload's model, in a sentence, or ''."""
    own = workload.own
    if contender.textbook and own is not None and own.prediction != "epsilon":
        return f"the textbook's loop is for networks that predict ε; this one predicts {own.prediction}"
    if contender.variant.layout is precision.channels_last and own is not None and not own.convolutions:
        return "the network has no convolution to lay out channels-last"
    if workload.guidance == 1 and (twin := _twin(contender)):
        why = "guidance is 1" if own is None or own.guidable else "the model has no labels to guide by"
        return f"{why}, and without guidance this row is the same as {twin!r}"
    return ""


def _twin(contender: Contender) -> str:
    """The row before this one (or the reference) that is the same to a model that is not guided, or ''."""
    if contender.name not in CONTENDERS:
        return ""
    rows = [CONTENDERS[REFERENCE], *(c for c in CONTENDERS.values() if c.name != REFERENCE)]
    before = [c for c in rows[: [c.name for c in rows].index(contender.name)] if c.needs in ("", contender.needs)]
    return next((c.name for c in before if _unguided(c) == _unguided(contender)), "")


def _unguided(contender: Contender) -> tuple:
    """What is left of a row where there is no guidance."""
    way = contender.variant
    return way.layout, way.precision, way.update, way.runtime, contender.path, contender.textbook
