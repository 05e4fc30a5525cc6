"""What lies beside a stored result, made by other commands: the page shows it, or says which command makes it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import walk as walks
from bench.gate import certificate as certificates
from bench.quality import record as qualities
from bench.quality.record import Quality
from bench.update import record as updates
from bench.update.record import UpdateCost
from bench.walk import Walk


@dataclass(frozen=True)
class Beside:
    """What was found beside a result; None where the command has not run on that machine."""

    walk: Walk | None = None
    update: UpdateCost | None = None
    quality: Quality | None = None
    certificate: dict[str, Any] | None = None


def beside(folder: Path) -> Beside:
    """Everything in the folder of a machine's results; refuses a file that is broken."""
    folder = Path(folder)

    def read(load, *parts: str):
        path = folder.joinpath(*parts)
        return load(path) if path.exists() else None

    return Beside(
        read(walks.load, "walk", "walk.json"),
        read(updates.load, "update", "update.json"),
        read(qualities.load, "quality", "quality.json"),
        certificates.load(folder.name, folder.parent),
    )
