"""The pictures that were timed: the same seeds for every row, and where they differ from the reference's."""

import base64
import io
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from bench.contenders import CONTENDERS, REFERENCE
from bench.measurement import Measurement, Row
from bench.report import labels
from bench.report.style import Plot
from bench.report.table import heading

MOST_COLUMNS, MOST_ROWS = 10, 60


def decode(event: dict) -> np.ndarray:
    """The pictures of an event as [B, C, H, W] uint8."""
    raw = np.frombuffer(base64.b64decode(event["uint8_base64"]), np.uint8)
    return raw.reshape(event["shape"])


def drawn(measurement: Measurement) -> dict[str, np.ndarray]:
    """Row name to pictures, for rows whose whole run was drawn and that did not fail; the reference first."""
    found = {e["row"]: decode(e) for e in measurement.of("pictures") if measurement.row(e["row"]).status != "red"}
    order = sorted(found, key=lambda name: (name != REFERENCE, measurement.rows.index(name)))
    return {name: found[name] for name in order[:MOST_ROWS]}


@dataclass(frozen=True)
class Strip:
    """One row's pictures beside each other, and their differences from the reference's, as data addresses."""

    row: Row
    count: int
    pictures: str
    difference: str
    largest: int | None  # grey levels of 255; None where there is no reference to compare with
    rms: float

    @property
    def said(self) -> str:
        """How far these pictures are from the reference's, in words."""
        if self.row.name == REFERENCE:
            return "what the others are compared with"
        if self.largest is None:
            return "no reference picture to compare with"
        if CONTENDERS[self.row.name].variant.update.draws if self.row.name in CONTENDERS else False:
            return "draws its own noise while it is timed, hence other pictures"
        if not self.largest:
            return "the same bytes"
        levels = f"{self.largest} grey level{'s' * (self.largest > 1)} of 255 at most"
        return levels if self.largest <= 1 else f"{levels}, {self.rms:.1f} RMS"


def strips(measurement: Measurement) -> list[Strip]:
    """For the page, every row that was drawn."""
    rows = drawn(measurement)
    reference = rows.get(REFERENCE)
    made = []
    for name, pictures in rows.items():
        pictures = pictures[:MOST_COLUMNS]
        gap, largest, rms = np.zeros_like(pictures), None, 0.0
        if reference is not None and reference[:MOST_COLUMNS].shape == pictures.shape:
            gap = np.abs(pictures.astype(np.int16) - reference[:MOST_COLUMNS]).astype(np.uint8)
            largest, rms = int(gap.max()), float(np.sqrt(np.mean(gap.astype(np.float64) ** 2)))
        made.append(Strip(measurement.row(name), len(pictures), address(beside(pictures)), address(beside(gap)),
                          largest, rms))  # fmt: skip
    return made


def beside(pictures: np.ndarray) -> np.ndarray:
    """Pictures [B, C, H, W] as one, [H, B · W, C]."""
    b, c, h, w = pictures.shape
    return pictures.transpose(2, 0, 3, 1).reshape(h, b * w, c)


def address(picture: np.ndarray) -> str:
    """A picture [H, W, C] uint8 as the address of a PNG that is written into the page itself."""
    out = io.BytesIO()
    Image.fromarray(visible(picture)).save(out, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def visible(picture: np.ndarray) -> np.ndarray:
    """Of a picture [H, W, C] what an eye can see: three channels as colours, of any other number the first as grey."""
    return picture if picture.shape[2] == 3 else picture[:, :, 0]


def plot(measurement: Measurement) -> Plot | None:
    """All of them in one figure; None where no whole run was drawn."""
    rows = drawn(measurement)
    if not rows:
        return None
    compared = [s for s in strips(measurement) if s.row.name != REFERENCE and s.largest is not None]
    alike = [s for s in compared if s.largest <= 1]  # type: ignore[operator]
    title = (f"Of {len(rows) - 1} rows, {len(alike)} draw the reference’s pictures to within one grey level"
             if REFERENCE in rows and len(rows) > 1 else "The pictures that were timed")  # fmt: skip
    words = "; ".join(f"{s.row.name}: {s.said}" for s in strips(measurement))
    return Plot("pictures", title, f"Pictures of the same seeds by row. {words}.",
                lambda inches: _draw(measurement, rows, inches), source=heading(measurement), bends=False,
                note="The same starting noise and label down each column.")  # fmt: skip


def _draw(measurement: Measurement, rows: dict[str, np.ndarray], inches: float) -> Figure:
    columns = min(MOST_COLUMNS, max(len(p) for p in rows.values()))
    cell = min(0.85, (inches - 1.5) / columns)
    engine = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure, grid = plt.subplots(len(rows), columns, figsize=(1.5 + cell * columns, cell * len(rows)), squeeze=False,
                                layout=engine)  # fmt: skip
    for line, (name, pictures) in zip(grid, rows.items(), strict=True):
        for column, axes in enumerate(line):
            axes.axis("off")
            if column < len(pictures):
                picture = visible(pictures[column].transpose(1, 2, 0))
                axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        said = f"{labels.short(name)}\n{measurement.row(name).steps:,} steps"
        line[0].text(-0.12, 0.5, said, transform=line[0].transAxes, ha="right", va="center")
    return figure
