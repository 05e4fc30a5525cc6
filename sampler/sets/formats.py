"""The files of a set: a PNG for each picture, or shards of many, as npz or safetensors."""

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save
from torch import Tensor

from sampler.errors import UsageError
from sampler.generate import to_unit
from sampler.models import Model

# pictures [N, H, W, C] uint8 (or latents [N, C, H, W] float32) and labels [N] int64 (-1 for none) as a file's bytes
Encode = Callable[[np.ndarray, np.ndarray], bytes]
SHOWN = (1, 3)  # channels of what can be looked at


def _png(pictures: np.ndarray, labels: np.ndarray) -> bytes:
    (picture,) = pictures
    out = io.BytesIO()
    Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(out, format="png")
    return out.getvalue()


def _npz(pictures: np.ndarray, labels: np.ndarray) -> bytes:
    # by the names under which published evaluators look for samples and labels; numpy stores no time in them
    out = io.BytesIO()
    np.savez(out, arr_0=pictures, arr_1=labels)
    return out.getvalue()


def _safetensors(pictures: np.ndarray, labels: np.ndarray) -> bytes:
    return save({"images": pictures, "labels": labels})


FORMATS: dict[str, Encode] = {"png": _png, "npz": _npz, "safetensors": _safetensors}


def as_bytes(model: Model, states: Tensor) -> np.ndarray:
    """The sampler's last states as pictures [N, H, W, C], 0…255; latents that nobody decodes as they are."""
    pictures = model.pictures(states)
    if pictures.shape[1] not in SHOWN:
        return pictures.float().cpu().numpy()
    grey = (to_unit(pictures.float().cpu()) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(grey.permute(0, 2, 3, 1).numpy())


def check_format(name: str, model: Model) -> None:
    """Refuse a picture's format for what is no picture."""
    if name == "png" and model.decode is None and model.shape[0] not in SHOWN:
        raise UsageError(
            f"model {model.name!r} draws {model.shape[0]} channels and has no decoder, so no pictures; "
            "`generate --format npz` (or safetensors) keeps what it draws"
        )


def labels_of(ids: Sequence[int], cycle: Sequence[int]) -> np.ndarray:
    """The labels of samples [N] int64; -1 where there are none."""
    return np.array([cycle[i % len(cycle)] if cycle else -1 for i in ids], dtype=np.int64)
