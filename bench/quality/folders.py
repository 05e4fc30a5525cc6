"""`python -m bench distance`: how far a folder of pictures is from another, in any feature space, your own too.

For sets that `python -m sampler generate` drew of a model of your own, which the shipped classifier cannot judge.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bench.quality import distances, inception
from bench.quality import real as shipped
from bench.quality.classifier import channels
from bench.quality.equivalence import LEAST, Loss, Set, kernel_distance
from bench.quality.judging import Features
from bench.quality.tables import shown
from sampler import strict_json
from sampler.errors import UsageError, in_one_line
from sampler.own_models import imported

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
AT_ONCE = 100  # pictures in memory
MOST_PAIRED = 2000  # of which all pairs are looked at: kernel distance, precision, recall


@dataclass(frozen=True)
class Distance:
    """Of two sets of features. pictures: of each, in the Fréchet distance; paired: of each, in the other three."""

    pictures: int
    paired: int
    frechet: float
    kernel: Loss
    precision: float
    recall: float

    def line(self) -> str:
        return (f"Fréchet {self.frechet:.4g} ({self.pictures:,} of each), kernel distance {shown(self.kernel)}, "
                f"precision {self.precision:.3f}, recall {self.recall:.3f} ({self.paired:,} of each)")  # fmt: skip


def add_to(commands) -> None:
    parser = commands.add_parser(
        "distance", help="how far a folder of pictures is from another: Fréchet and kernel distance, precision, recall",
        epilog="A function of your own takes images [N, C, H, W] in [-1, 1] and returns features [N, D]. Equal numbers "
        "are compared: the larger folder is thinned evenly. The last line is what two halves of the real pictures are "
        "apart, the floor.",
    )  # fmt: skip
    parser.add_argument("generated", type=Path, help="folder of pictures, as `python -m sampler generate` leaves one")
    parser.add_argument("real", type=Path, nargs="?", help="folder of the pictures that they are held against, of the "
                        "same size (default: the training images whose features ship with the classifier)")  # fmt: skip
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--features", metavar="NAME", help="package.module:function or path/to/file.py:function (default: "
                     "the shipped classifier of Fashion-MNIST, 1×28×28)")  # fmt: skip
    how.add_argument("--inception", type=Path, metavar="FILE", help=f"FID's network, from a local {inception.WEIGHTS}")
    parser.add_argument("--json", action="store_true", help="for a program to read")
    parser.set_defaults(do=run)


def run(arguments: argparse.Namespace) -> int:
    extract = _asked(arguments)
    generated = features_of(arguments.generated, extract)
    real = shipped.load().train if arguments.real is None else features_of(arguments.real, extract)
    if generated.shape[1] != real.shape[1]:
        raise UsageError(f"features of {generated.shape[1]} and of {real.shape[1]} numbers; pictures of one size and "
                         "number of channels are needed")  # fmt: skip
    found = between(generated, real)
    halves = between(real[::2], real[1::2]) if len(real) >= 2 * LEAST else None
    if arguments.json:
        print(strict_json.dumps({"found": asdict(found), "floor": halves and asdict(halves)}))
        return 0
    print(f"{arguments.generated} against {arguments.real or 'real training images'}: {found.line()}")
    print("floor, two halves of the real ones: " + (halves.line() if halves else f"needs {2 * LEAST} real pictures"))
    return 0


def _asked(arguments: argparse.Namespace) -> Features:
    own = arguments.inception or arguments.features
    if own and arguments.real is None:
        raise UsageError(f"real pictures are missing: no features of them ship for {own}; name a folder of them")
    if arguments.inception is not None:
        return inception.features(arguments.inception)
    if arguments.features is not None:
        return own_features(arguments.features)
    return lambda images: shipped.load().standard(channels(images))


def own_features(name: str) -> Features:
    """Somebody's function by its name, whose answers are checked; what it raises becomes a sentence."""
    where, _, attribute = name.rpartition(":")
    if not where:
        raise UsageError(f"--features {name}: name it package.module:function or path/to/file.py:function")
    asked = f"--features {name}"
    function: Callable | None = getattr(imported(where, asked), attribute, None)
    if not callable(function):
        raise UsageError(f"{asked}: {where} has no function called {attribute!r}")

    def extract(images: Tensor) -> Tensor:
        try:
            found = function(images)
        except Exception as error:
            raise UsageError(f"{asked}: it failed on images {list(images.shape)}: {in_one_line(error)}") from error
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images):
            what = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UsageError(f"{asked}: it returned {what} for {len(images)} images; [{len(images)}, D] is needed")
        return found.detach().cpu().double()

    return extract


def features_of(folder: Path, extract: Features) -> Tensor:
    """Features [N, D] of every picture in a folder, in the order of their names."""
    try:
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES)
    except OSError as error:
        raise UsageError(f"cannot read the folder {folder}: {error.strerror}") from None
    if len(paths) < LEAST:
        raise UsageError(f"{folder} holds {len(paths)} pictures ({', '.join(PICTURES)}); of fewer than {LEAST} nothing "
                         "can be said")  # fmt: skip
    first = _read(paths[0])
    found = []
    for start in range(0, len(paths), AT_ONCE):
        pixels = []
        for path in paths[start : start + AT_ONCE]:
            pixels.append(_read(path))
            if pixels[-1].shape != first.shape:
                raise UsageError(f"{path} is {_size(pixels[-1])}, and {paths[0].name} is {_size(first)}; pictures of "
                                 "one size are needed")  # fmt: skip
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        found.append(extract(images))
    features = torch.cat(found).double()
    if not bool(features.isfinite().all()):
        raise UsageError(f"some features of the pictures in {folder} are NaN or infinite")
    return features


def _read(path: Path) -> np.ndarray:
    """[H, W, C] uint8; grey has one channel, everything else three."""
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture if picture.mode == "L" else picture.convert("RGB"))
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a picture ({in_one_line(error)})") from None
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _size(pixels: np.ndarray) -> str:
    height, width, channels_ = pixels.shape
    return f"{channels_}×{height}×{width}"


def between(generated: Tensor, real: Tensor) -> Distance:
    """Of two sets of features [N, D] and [M, D]; as many of each are taken, evenly."""
    n = min(len(generated), len(real))
    g, r = _thinned(generated, n), _thinned(real, n)
    few_g, few_r = _thinned(g, min(n, MOST_PAIRED)), _thinned(r, min(n, MOST_PAIRED))
    one = torch.zeros(len(few_g), dtype=torch.long)
    precision, recall = distances.precision_recall(few_g, few_r)
    return Distance(
        n, len(few_g), distances.frechet(distances.statistics(g), distances.statistics(r)),
        kernel_distance(Set(few_g, one.bool(), one, one.double()), few_r), precision, recall,
    )  # fmt: skip


def _thinned(features: Tensor, count: int) -> Tensor:
    return features[torch.linspace(0, len(features) - 1, count, dtype=torch.float64).round().long()]
