"""Training of the judge: one fixed recipe, the last EMA weights, measured once on the test images.

Nothing is chosen by looking at the test set. Besides the weights, the run writes the first test
images with their logits (for the tests of the project) and the model card.
"""

from sampler import start

STOPPED = "stopped"
start.begin(__name__, STOPPED)  # before the imports that take seconds

import argparse
import sys
import textwrap
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import cos, pi
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.quality.classifier import (
    Accuracy,
    Classifier,
    load_classifier,
    predictions,
    save_classifier,
)
from sampler.card import describe_machine, sha256
from sampler.data import CLASSES, DEFAULT_ROOT, fashion_mnist
from sampler.errors import UsageError
from sampler.files import replacing, writable_folder

SAMPLE = 500  # test images shipped with the weights


@dataclass(frozen=True)
class Recipe:
    """What determines the weights, together with the data."""

    images: int = 900_000  # images seen in all, with repetition
    batch: int = 128
    learning_rate: float = 3e-3
    warmup_steps: int = 200
    weight_decay: float = 1e-2
    label_smoothing: float = 0.05
    shift: int = 1  # images are moved by up to this many pixels each way
    ema_decay: float = 0.998
    seed: int = 0

    @property
    def steps(self) -> int:
        return max(1, self.images // self.batch)


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def train(images: Tensor, labels: Tensor, recipe: Recipe, report=_report) -> dict[str, Tensor]:
    """Train a `Classifier` on images [N, 1, 28, 28] in [-1, 1] and labels [N]; the EMA weights."""
    torch.manual_seed(recipe.seed)
    network = Classifier().train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on a CPU
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    ema = {name: value.detach().clone() for name, value in network.state_dict().items()}
    start, running = time.monotonic(), 0.0
    for step, index in enumerate(_shuffled(len(images), recipe)):
        warmup = min(1.0, (step + 1) / recipe.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * warmup * 0.5 * (1 + cos(pi * step / recipe.steps))
        x = _shifted(images[index], recipe.shift).contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(network(x), labels[index], label_smoothing=recipe.label_smoothing)
        loss.backward()
        optimizer.step()
        decay = min(recipe.ema_decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if value.is_floating_point():  # parameters, and the means and variances of the norms
                ema[name].lerp_(value, 1 - decay)
            else:
                ema[name].copy_(value)
        running += float(loss.detach())
        if (step + 1) % 100 == 0:
            left_s = (time.monotonic() - start) * (recipe.steps / (step + 1) - 1)
            seen, total = (step + 1) * recipe.batch, recipe.steps * recipe.batch
            report(f"{seen:>9,} of {total:,} images  loss {running / 100:.4f}  {left_s / 60:.1f} min left")
            running = 0.0
    return ema


def _shuffled(count: int, recipe: Recipe) -> Iterator[Tensor]:
    """Indices of each batch; every epoch is a fresh permutation, its incomplete batch left out."""
    per_epoch = max(1, count // recipe.batch)
    for step in range(recipe.steps):
        if step % per_epoch == 0:
            order = torch.randperm(count)
        yield order[step % per_epoch * recipe.batch :][: recipe.batch]


def _shifted(images: Tensor, most: int) -> Tensor:
    """Each image moved by its own whole number of pixels, black (-1) coming in at the edge."""
    size = images.shape[-1]
    padded = F.pad(images[:, 0], (most,) * 4, value=-1.0)
    windows = padded.unfold(1, size, 1).unfold(2, size, 1)  # a view, [N, shifts, shifts, size, size]
    dy, dx = torch.randint(0, 2 * most + 1, (2, len(images)))
    return windows[torch.arange(len(images)), dy, dx][:, None]


def write_sample(path: Path, images: Tensor, labels: Tensor, classifier: torch.nn.Module) -> None:
    """Images [N, 1, 28, 28] as bytes, labels [N] and the logits [N, 10] they must keep giving."""
    with torch.inference_mode():
        logits = classifier(images)
    pixels = images[:, 0].add(1).mul(127.5).round().to(torch.uint8)  # [N, 28, 28]
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, images=pixels, labels=labels.to(torch.uint8), logits=logits)


def write_card(path: Path, weights: Path, recipe: Recipe, minutes: float, predicted: Tensor, labels: Tensor) -> None:
    """The model card, so that its numbers are those of the run; predicted, labels: [10000]."""
    right = predicted == labels
    whole, sample = (Accuracy(int(r.sum()), len(r)) for r in (right, right[:SAMPLE]))
    low, high = whole.interval
    rows = []
    for label, name in enumerate(CLASSES):
        of_class = right[labels == label]
        wrong = predicted[(labels == label) & ~right]
        rival = CLASSES[int(wrong.mode().values)] if len(wrong) else "none"
        rows.append(f"| {name} | {int(of_class.sum())} of {len(of_class)} | {rival} |")
    options = ", ".join(f"{name} {value}" for name, value in asdict(recipe).items())
    options = textwrap.fill(f"- Options of `Recipe`: {options}.", 100, subsequent_indent="  ")
    text = CARD.format(
        parameters=sum(p.numel() for p in Classifier().parameters()), size=weights.stat().st_size,
        sha256=sha256(weights), options=options, seed=recipe.seed, images=recipe.steps * recipe.batch,
        minutes=minutes, machine=describe_machine(torch.device("cpu")), torch=torch.__version__,
        python=".".join(map(str, sys.version_info[:3])), total=whole.total, correct=whole.correct,
        value=whole.value, low=low, high=high, sample=f"{sample.correct} of {sample.total}",
        sample_size=SAMPLE, rows="\n".join(rows),
    )  # fmt: skip
    path.write_text(text)


CARD = """\
# The classifier that judges generated images

`classifier.safetensors`: {parameters:,} parameters, float32, {size:,} bytes, MIT licence like the project.
It tells whether a generated Fashion-MNIST image looks like the label it was drawn for, and the
means of its last convolution's 64 channels are the features of the distances between sets of images. It
is a judge for comparing samplers on this one data set, and nothing else.

sha256 `{sha256}`

## Test accuracy

**{value:.2%}** on the {total:,} test images ({correct:,} right; Wilson's 95 % interval
{low:.2%} to {high:.2%}). Generated images can score above this without being better: guidance makes
images more typical of their class than real ones are. So label accuracy is to be read beside a distance.

| Class | Right | Most often taken for |
|---|---|---|
{rows}

The weights are the last moving average; no checkpoint and no option was chosen on the test images.
Network and augmentation were chosen on the last 5,000 training images, in shorter runs that trained
on the other 55,000; the run below used all 60,000.

## Training

```
python -m bench.quality.train_classifier --out bench/quality/weights
```

- Data: Fashion-MNIST (Xiao, Rasul & Vollgraf 2017; Zalando SE, MIT licence), 60,000 training images,
  from Debian's package `dataset-fashion-mnist`.
- Seed {seed}; {images:,} images seen, with repetition, in {minutes:.1f} minutes on one thread.
{options}
- AdamW, a cosine to zero after the warm-up, cross-entropy; images are moved by up to `shift` pixels.
- Machine: {machine}; Python {python}, PyTorch {torch}.

The same command on the same machine and PyTorch gives the same bytes; elsewhere the last bits of sums
differ, and with them, after thousands of steps, the weights and the accuracy a little.

## The sample

`test_sample.npz`: the first {sample_size} test images (bytes), their labels, and the logits of these weights,
so that the judge can be checked where the data set is not installed. Right: {sample}.
The images are Zalando's, under the MIT licence:

> The MIT License (MIT) Copyright © 2017 Zalando SE, https://tech.zalando.com
>
> Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
> associated documentation files (the “Software”), to deal in the Software without restriction, including
> without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
> copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the
> following conditions:
>
> The above copyright notice and this permission notice shall be included in all copies or substantial
> portions of the Software.
>
> THE SOFTWARE IS PROVIDED “AS IS”, WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT
> LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO
> EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER
> IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR
> THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.quality.train_classifier", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for what is made")
    parser.add_argument("--data", type=Path, default=DEFAULT_ROOT, metavar="DIR",
                        help="folder with Fashion-MNIST's four .gz files (default: %(default)s)")  # fmt: skip
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)  # the order of the sums, and so the last bits, depend on it
    try:
        folder = writable_folder(arguments.out)
        images, labels = fashion_mnist("train", arguments.data)
        test_images, test_labels = fashion_mnist("t10k", arguments.data)
    except (UsageError, OSError, EOFError, zlib.error) as mistake:  # the latter: a damaged .gz
        print(f"{parser.prog}: {mistake}", file=sys.stderr)
        return 3
    recipe, weights = Recipe(), folder / "classifier.safetensors"
    began = time.monotonic()
    save_classifier(train(images, labels, recipe), weights)
    minutes = (time.monotonic() - began) / 60

    classifier = load_classifier(weights)
    predicted = predictions(test_images, classifier)
    write_sample(folder / "test_sample.npz", test_images[:SAMPLE], test_labels[:SAMPLE], classifier)
    write_card(folder / "README.md", weights, recipe, minutes, predicted, test_labels)
    print(f"{weights}\nsha256 {sha256(weights)}")
    return 0


if __name__ == "__main__":
    start.finish(main, STOPPED)
