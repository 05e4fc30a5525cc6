"""grid.png: the pictures that were timed, the same seeds in each column, one row a variant."""

import base64
import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from bench.measurement import Measurement


def decode(event: dict) -> np.ndarray:
    """The pictures of an event as [B, C, H, W] uint8."""
    raw = np.frombuffer(base64.b64decode(event["uint8_base64"]), np.uint8)
    return raw.reshape(event["shape"])


def drawn(measurement: Measurement) -> dict[str, np.ndarray]:
    """Row name to pictures, for rows whose whole run was drawn and that did not fail."""
    return {e["row"]: decode(e) for e in measurement.of("pictures") if measurement.row(e["row"]).status != "red"}


def png(measurement: Measurement) -> bytes | None:
    """The grid as a PNG file's bytes, or None where no whole run was drawn."""
    rows = drawn(measurement)
    if not rows:
        return None
    columns = min(10, max(len(p) for p in rows.values()))
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(2.4 + 0.85 * columns, 0.85 * len(rows) + 0.8), squeeze=False
    )
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for column, cell in enumerate(line):
            cell.axis("off")
            if column < len(pictures):
                picture = pictures[column].transpose(1, 2, 0)
                cell.imshow(picture.squeeze(-1) if picture.shape[-1] == 1 else picture, cmap="gray",
                            vmin=0, vmax=255, interpolation="nearest")  # fmt: skip
        row = measurement.row(name)
        line[0].text(-0.12, 0.5, f"{name}\n{row.steps:,} steps", transform=line[0].transAxes, ha="right",
                     va="center", fontsize=8)  # fmt: skip
    figure.suptitle("The pictures that were timed: the same starting noise and label down each column", fontsize=9)
    figure.subplots_adjust(left=2.1 / figure.get_figwidth(), right=0.99, bottom=0.01,
                           top=1 - 0.45 / figure.get_figheight(), wspace=0.05, hspace=0.05)  # fmt: skip
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130, metadata={"Software": None})
    plt.close(figure)
    return out.getvalue()
