"""Pictures for people: a grid of samples, the loss of a training run, signals being denoised."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sampler import generate
from sampler.files import replacing
from sampler.generate import Samples

BLUE, ORANGE, GREY = "#3b6ea8", "#d9662b", "#8a8a8a"


def save_grid(images: Tensor, path: Path, columns: int, names: Sequence[str] = (), enlarge: int = 3) -> None:
    """Images [N, C, H, W] in [-1, 1] row by row, each pixel `enlarge` wide; names stand left of the rows."""
    picture = (generate.grid(images, columns) * 255).round().to(torch.uint8).permute(1, 2, 0)  # [H', W', C]
    grid = Image.fromarray(picture.squeeze(-1).numpy())
    grid = grid.resize((grid.width * enlarge, grid.height * enlarge), Image.Resampling.NEAREST)
    font = ImageFont.load_default(size=5 * enlarge + 2)
    margin = max((int(font.getlength(name)) + 5 * enlarge for name in names), default=0)
    page = Image.new(grid.mode, (margin + grid.width, grid.height), "white")
    page.paste(grid, (margin, 0))
    pen, rows = ImageDraw.Draw(page), -(-len(images) // columns)
    for i, name in enumerate(names):
        pen.text((2 * enlarge, (i + 0.5) * page.height / rows), name, fill="black", font=font, anchor="lm")
    with replacing(path) as partial:
        page.save(partial, format="png", optimize=True)


def save_loss(loss_csv: Path, path: Path) -> None:
    """Loss against images seen, from the file that training writes."""
    with open(loss_csv, newline="") as file:
        rows = [(int(row["images"]), float(row["loss"])) for row in csv.DictReader(file)]
    seen, loss = zip(*rows, strict=True)
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(seen, loss, color=BLUE, linewidth=0.8)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("images seen")
    axes.set_ylabel("mean squared error of ε")
    axes.set_title(f"Training loss, means of {seen[0]:,} images; the last is {loss[-1]:.4f}", fontsize=10)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=130)


def save_denoising(
    ways: Mapping[str, Samples],
    path: Path,
    notes: Sequence[str],
    captions: Mapping[str, Sequence[str]],
    truths: Mapping[str, Tensor],
) -> None:
    """Per way a row, per kept timestep a column: x_t and the x0 estimate made from it; last the sample.

    notes: what is to be seen in each column, captions: in each panel, the last column included.
    truths: for each way, the signal [n] that its sample is of.
    """
    timesteps = list(next(iter(ways.values())).kept)
    figure = Figure(figsize=(2.2 * (len(timesteps) + 1), 2.3 * len(ways) + 1.4), layout="constrained")
    grid = figure.subplots(len(ways), len(timesteps) + 1, sharex=True, sharey=True, squeeze=False)
    for row, (way, samples) in zip(grid, ways.items(), strict=True):
        for axes, t in zip(row, timesteps, strict=False):
            x, x0 = (state.flatten().tolist() for state in samples.kept[t])
            axes.plot(x, color=BLUE, linewidth=0.6, alpha=0.75, label="$x_t$, the noisy state")
            axes.plot(x0, color=ORANGE, linewidth=1.8, label="$E[x_0\\,|\\,x_t]$, the estimate of the signal")
        row[-1].plot(truths[way].tolist(), color="black", linewidth=4, alpha=0.2, label="the signal it is of")
        row[-1].plot(samples.images.flatten().tolist(), color=BLUE, linewidth=0.9)
        row[0].set_ylabel(way, fontsize=10)
        for axes, caption in zip(row, captions[way], strict=True):
            axes.set_title(caption, y=0.0, pad=2, fontsize=8, style="italic")
            axes.set(xticks=[], ylim=(-3, 2.6), yticks=(-2, -1, 0, 1, 2))
            axes.spines[["top", "right", "bottom"]].set_visible(False)
            axes.axhline(0, color=GREY, linewidth=0.4, zorder=0)
    titles = [*(f"t = {t}" for t in timesteps), "the sample"]
    for axes, title, note in zip(grid[0], titles, notes, strict=True):
        axes.annotate(title, (0.5, 1.22), xycoords="axes fraction", ha="center", weight="bold", fontsize=10)
        axes.annotate(note, (0.5, 1.18), xycoords="axes fraction", ha="center", va="top", fontsize=9)
    first, last = (axes.get_legend_handles_labels() for axes in (grid[0, 0], grid[0, -1]))
    figure.legend(first[0] + last[0], first[1] + last[1], loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(
        "One signal is drawn from pure noise: one start, two samplers (in italics: the likeliest signal)",
        fontsize=12,
    )
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
