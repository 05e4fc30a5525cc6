"""What decides the bytes of a set: written into its folder, and compared before a run goes on with it."""

import hashlib
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import nn

from sampler import cpu
from sampler.models import Model
from sampler.trajectory import Trajectory
from sampler.variants import Variant

WORDS = {
    "model": "the model", "weights": "the weights of the model", "path": "the timesteps or coefficients of the sampler",
    "network_batch": "--network-batch", "labels": "--labels", "shard": "--shard",
    "machine": "the kind of processor", "torch": "PyTorch",
}  # fmt: skip


@dataclass(frozen=True)
class Identity:
    """Everything besides its number on which a sample depends, and how it is filed.

    weights, path: SHA-256 of the model's tensors, and of the timesteps with their coefficients. labels: sample i gets
    labels[i % len(labels)]; none where the model takes none. network_batch: samples a network call. machine, torch,
    threads: another kind of processor, version or number of threads may round otherwise. shard: samples a file.
    """

    model: str
    weights: str
    sampler: str
    steps: int
    path: str
    guidance: float
    seed: int
    labels: tuple[int, ...]
    variant: str
    network_batch: int
    threads: int
    machine: str
    torch: str
    format: str
    shard: int

    def json(self) -> dict[str, Any]:
        return {**asdict(self), "labels": list(self.labels)}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Identity":
        return cls(**{**stored, "labels": tuple(stored["labels"])})

    def difference(self, other: "Identity") -> str:
        """The first thing in which another set differs from this one, in words, or ''."""
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if mine != theirs:
                name = WORDS.get(one.name, f"--{one.name}")
                shown = (f"{str(v)[:12]}…" if len(str(v)) > 60 else str(v) for v in (mine, theirs))
                return "{} was {}, and is {}".format(name, *shown)
        return ""


def identify(
    name: str,
    model: Model,
    trajectory: Trajectory,
    variant: Variant,
    *,
    guidance: float,
    seed: int,
    labels: tuple[int, ...],
    network_batch: int,
    format: str = "png",
    shard: int = 1,
) -> Identity:
    """The identity of what a model draws in this process, with its threads, on the model's device."""
    return Identity(
        name, weights_digest(model), trajectory.name, trajectory.steps, path_digest(trajectory), guidance, seed, labels,
        variant.name, network_batch, torch.get_num_threads(), kind_of_machine(model.device), torch.__version__, format,
        shard,
    )  # fmt: skip


def weights_digest(model: Model) -> str:
    """SHA-256 of a model's tensors by name, its structure and its schedule; of a decoder that is a module, too."""
    digest = hashlib.sha256(f"{model.network}{model.prediction}{model.null_label}{model.clip}".encode())
    tensors = {**dict(model.network.state_dict()), "betas": model.schedule.betas}
    if isinstance(model.decode, nn.Module):
        digest.update(f"{model.decode}".encode())
        tensors |= {f"decoder: {name}": tensor for name, tensor in model.decode.state_dict().items()}
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def path_digest(path: Trajectory) -> str:
    """SHA-256 of a trajectory's timesteps and coefficients."""
    return hashlib.sha256(f"{path.timesteps}".encode() + path.rows.numpy().tobytes()).hexdigest()


def kind_of_machine(device: torch.device) -> str:
    """What of a device decides how it rounds."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu {cpu.capability()}"
