"""The model card of the shipped weights: what was done and what came of it, computed and not typed.

python -m bench.quality.model_card --training FOLDER --processes 2
"""

from sampler import start

STOPPED = "\nmodel_card: interrupted; the same command draws what is still missing"
start.begin(__name__, STOPPED)  # before the imports that take seconds

import argparse
import csv
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bench import store
from bench.quality.classifier import DEFAULT_WEIGHTS, Accuracy, label_accuracy, load_classifier
from bench.quality.model_samples import Request, draw
from sampler import cpu, figures
from sampler.card import TrainingRecord, read_record, sha256
from sampler.data import CLASSES, DEFAULT_ROOT, fashion_mnist
from sampler.errors import UsageError
from sampler.files import replacing, writable_folder
from sampler.models import RECIPES, WEIGHTS

MODEL = "fashion-mnist"
CACHE = store.SCRATCH / "model-card"
SHOWN = 10  # samples a class in the picture


@dataclass(frozen=True)
class Judgement:
    """What the classifier makes of labelled images.

    per_class: accuracy of each class; mistakes: for each class the label most often given instead,
    with its count; variety: mean over classes of the pixels' standard deviation, in grey levels of 255.
    """

    overall: Accuracy
    per_class: tuple[Accuracy, ...]
    mistakes: tuple[tuple[int, int], ...]
    variety: float


def judge(images: Tensor, labels: Tensor, classifier: nn.Module) -> Judgement:
    """Judge images [N, 1, 28, 28] in [-1, 1] by their labels [N]."""
    with torch.inference_mode():
        predicted = torch.cat([classifier(batch).argmax(1) for batch in images.split(500)])
    per_class, mistakes, spreads = [], [], []
    for k in range(len(CLASSES)):
        mine = labels == k
        per_class.append(label_accuracy(images[mine], labels[mine], classifier))
        counts = torch.bincount(predicted[mine], minlength=len(CLASSES))
        counts[k] = 0
        mistakes.append((int(counts.argmax()), int(counts.max())))
        spreads.append(images[mine].std(0).mean() * 127.5)
    overall = label_accuracy(images, labels, classifier)
    return Judgement(overall, tuple(per_class), tuple(mistakes), float(torch.stack(spreads).mean()))


def main(argv: list[str] | None = None) -> int:
    """Draw, judge and write; a mistake is one sentence and exit status 3."""
    try:
        make(_parser().parse_args(argv))
    except UsageError as mistake:
        print(f"model_card: {mistake}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        start.say(STOPPED)
        return start.INTERRUPTED
    return 0


def make(arguments: argparse.Namespace) -> None:
    """Write the card and its pictures into `--out`, and the weights with their record if not there yet."""
    if arguments.processes < 1:
        raise UsageError(f"--processes {arguments.processes} is below 1")
    out, training = writable_folder(arguments.out), arguments.training or arguments.out
    record = read_record(training / f"{MODEL}.json")
    weights = training / f"{MODEL}.safetensors"
    if not weights.exists() or sha256(weights) != record.sha256:
        raise UsageError(f"{weights} is not the file that {MODEL}.json beside it describes")
    loss = next((p for p in (training / f"{MODEL}-loss.csv", training / "loss.csv") if p.exists()), None)
    if loss is None:
        raise UsageError(f"no loss.csv in {training}")
    classifier = load_classifier(arguments.classifier)
    real = fashion_mnist("t10k", arguments.data)
    a = arguments
    unguided, guided = (
        Request(MODEL, weights.resolve(), a.per_class, scale, a.steps, a.seed, a.batch) for scale in (1.0, a.guidance)
    )
    torch.set_num_threads(1)
    drawn = draw([unguided, guided], arguments.cache, arguments.processes, _report)

    _copy(weights, out / weights.name)
    _copy(training / f"{MODEL}.json", out / f"{MODEL}.json")
    _copy(loss, out / f"{MODEL}-loss.csv")
    figures.save_loss(loss, out / f"{MODEL}-loss.png")
    images, labels = drawn[1]
    shown = torch.cat([images[labels == k][:SHOWN] for k in range(len(CLASSES))])
    figures.save_grid(shown, out / f"{MODEL}-samples.png", len(shown) // len(CLASSES), CLASSES, enlarge=2)
    judgements = [judge(*pair, classifier) for pair in (*drawn, real)]
    command = (
        f"python -m bench.quality.model_card --per-class {guided.per_class} --guidance {guided.guidance:g} "
        f"--steps {guided.steps} --seed {guided.seed} --batch {guided.batch}"
    )
    with replacing(out / "README.md") as partial:
        partial.write_text(card(record, out, unguided, guided, judgements, command), encoding="utf-8")
    print(out / "README.md")


def _copy(source: Path, target: Path) -> None:
    if source.resolve() != target.resolve():
        with replacing(target) as partial:
            shutil.copyfile(source, partial)


def card(
    record: TrainingRecord,
    out: Path,
    unguided: Request,
    guided: Request,
    judgements: Sequence[Judgement],
    command: str,
) -> str:
    """The text; judgements of unguided samples, of guided ones and of the real test images."""
    o, c = record.options, RECIPES[MODEL].config
    with open(out / f"{MODEL}-loss.csv", newline="") as file:
        loss = list(csv.DictReader(file))
    seen, window = o.steps * o.batch, int(loss[-1]["images"]) - int(loss[-2]["images"] if loss[1:] else 0)
    sides = [c.image_size // c.patch // 2**level for level in c.attention]
    threads = "1 thread" if record.threads == 1 else f"{record.threads} threads"
    what = {
        "File": f"`{MODEL}.safetensors`, {(out / f'{MODEL}.safetensors').stat().st_size:,} bytes",
        "SHA-256": f"`{record.sha256}`",
        "Network": f"the U-Net of `sampler/unet.py`, {record.parameters:,} parameters: pixel-unshuffle by "
        f"{c.patch}, channels {' and '.join(map(str, c.widths))}, self-attention with {c.heads} heads at "
        + " and ".join(f"{side}×{side}" for side in sides),
        "Predicts": "ε, for the linear schedule of 1,000 timesteps (Ho et al. 2020); "
        f"label {c.classes} stands for no label",
        "Weights": f"exponential moving average, decay {o.ema_decay}; float32",
        "Data": f"the {record.data_images:,} training images of Fashion-MNIST (Xiao, Rasul and Vollgraf "
        "2017; Zalando SE; MIT licence), from Debian's package `dataset-fashion-mnist`",
        "Licence": "MIT, like the rest of this project",
    }
    how = {
        "Images seen": f"{seen:,} ({seen / record.data_images:.1f} passes over the data), "
        f"{o.steps:,} steps of {o.batch}",
        "Optimiser": f"AdamW, learning rate {o.learning_rate:g} with {o.warmup_steps} warm-up steps, "
        f"then a cosine to 0; gradient norm clipped at {o.gradient_norm:g}",
        "Labels dropped": f"{o.label_dropout:.0%}, for classifier-free guidance",
        "Seed": str(o.seed),
        "Time": f"{float(loss[-1]['seconds']) / 60:.0f} minutes, {threads} on {record.machine}",
        "Software": f"PyTorch {record.torch}, Python {record.python}",
        "Final loss": f"{float(loss[-1]['loss']):.4f}, squared error of ε over the last {window:,} images",
    }
    scale, (plain, guided_j, real) = f"{guided.guidance:g}", judgements
    overall = {"guidance 1 (none)": plain, f"guidance {scale}": guided_j, "real test images": real}
    half = max(high - low for low, high in (j.overall.interval for j in judgements[:2])) / 2
    return f"""# `{MODEL}.safetensors`

<!-- written by `python -m bench.quality.model_card`; change that, not this -->

A denoiser for diffusion sampling: {c.image_size}×{c.image_size} grey pictures of ten kinds of clothes, by
label or without one. It is here so that accelerations can be measured on a trained network a CPU can run.

![samples of each class at guidance {scale}]({MODEL}-samples.png)

*The first samples of each class at guidance {scale}, {guided.steps:,} ancestral steps, seed {guided.seed};
none was picked out.*

## What it is

{_table(("", ""), [(f"**{name}**", value) for name, value in what.items()])}

## How it was made

    {record.command}

{_table(("", ""), [(f"**{name}**", value) for name, value in how.items()])}

![training loss against images seen]({MODEL}-loss.png)

On the same processor and software the same command gives the same bits, killed and resumed or not. Elsewhere
rounding differs, and after so many steps the weights do too.

## How good it is

Label accuracy is the share of samples in which the classifier of `bench/quality` sees the class that was
asked for: {guided.per_class} samples a class, {guided.steps:,} ancestral steps, seed {guided.seed}, with
Wilson's 95 % interval. Samples can score above its accuracy on real images:
guidance makes them more typical of their class.

{_table(("images", "label accuracy", "95 % interval", "variety"), [_overall(*o) for o in overall.items()])}

*Variety* is the standard deviation of a pixel among the pictures of one class, in grey levels of 255,
averaged over pixels and classes.

{_table(("class", *overall, f"taken for (guidance {scale})"), _classes(judgements, guided_j))}

    {command}

Drawn by the variant `{unguided.variant}`, which differs from the reference by rounding, and judged as saved,
in 8 bits.

## What it cannot do

- {_weakest(guided_j)}
- Its variety is {plain.variety / real.variety:.0%} of that of real images; at guidance {scale} it is
  {guided_j.variety / real.variety:.0%}.
- {plain.overall.total:,} samples give label accuracy to about ±{100 * half:.1f} percentage points, and a
  single class far less well.
- Label accuracy sees neither sharpness nor pictures that are copies of one another.
- It knows ten kinds of clothes at {c.image_size}×{c.image_size}, and is of no use beyond measuring and
  teaching.
"""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _overall(name: str, j: Judgement) -> tuple[str, ...]:
    low, high = j.overall.interval
    share = f"{j.overall.value:.1%} ({j.overall.correct:,} of {j.overall.total:,})"
    return name, share, f"{low:.1%} to {high:.1%}", f"{j.variety:.1f}"


def _classes(judgements: Sequence[Judgement], guided: Judgement) -> Iterable[tuple[str, ...]]:
    for k, name in enumerate(CLASSES):
        label, times = guided.mistakes[k]
        mistake = f"{CLASSES[label]} ({times})" if times else "–"
        yield name, *(f"{j.per_class[k].value:.0%}" for j in judgements), mistake


def _weakest(j: Judgement) -> str:
    k = min(range(len(CLASSES)), key=lambda k: j.per_class[k].correct)
    label, times = j.mistakes[k]
    if not times:
        return "Under guidance every sample was recognised, so its weakest class is not known."
    return (
        f"Under guidance the weakest class is *{CLASSES[k]}*: {j.per_class[k].correct} of "
        f"{j.per_class[k].total} are recognised, and {times} are taken for *{CLASSES[label]}*."
    )


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UsageError(f"{message}; see --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m bench.quality.model_card",
        description=__doc__,
        epilog="Finished shards are kept in --cache, so a killed run goes on where it stopped.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add, given = parser.add_argument, "default: %(default)s"
    add(
        "--out",
        type=Path,
        default=WEIGHTS,
        metavar="DIR",
        help="folder of the card (default: the shipped one)",
    )
    add(
        "--training",
        type=Path,
        metavar="DIR",
        help="folder that `train` filled, to copy from (default: --out)",
    )
    add("--per-class", type=int, default=50, metavar="N", help=f"samples a class ({given})")
    add("--guidance", type=float, default=3.0, metavar="S", help=f"scale to judge beside 1 ({given})")
    add("--steps", type=int, default=1000, metavar="N", help=f"ancestral steps ({given})")
    add("--seed", type=int, default=0, help=f"of the samples ({given})")
    add("--batch", type=int, default=100, help=f"samples a shard ({given})")
    add(
        "--processes",
        type=int,
        default=cpu.usable(),
        metavar="N",
        help=f"of one thread each ({given})",
    )
    add("--cache", type=Path, default=CACHE, metavar="DIR", help=f"folder of finished shards ({given})")
    add(
        "--classifier",
        type=Path,
        default=DEFAULT_WEIGHTS,
        metavar="FILE",
        help="the judge (default: the shipped)",
    )
    add("--data", type=Path, default=DEFAULT_ROOT, metavar="DIR", help=f"folder of Fashion-MNIST ({given})")
    return parser


if __name__ == "__main__":
    start.finish(main, STOPPED)
