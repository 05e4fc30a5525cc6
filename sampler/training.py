"""Training of the shipped denoiser: the simple loss, an EMA, and checkpoints that survive a kill.

Every random number of step n is drawn from a generator seeded by (seed, n), so a run that was
killed and resumed is, step for step, the run that was not.
"""

import csv
import os
import pickle
import time
import zlib
from dataclasses import asdict, dataclass
from math import cos, pi
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sampler.errors import UsageError
from sampler.schedule import NoiseSchedule
from sampler.unet import UNet

CHECKPOINT = {"options", "network", "ema", "step", "optimizer", "spent_s", "history"}  # what each one holds


@dataclass(frozen=True)
class TrainingOptions:
    """What determines the result of a training run, together with the data and the network."""

    images: int = 900_000  # images seen in all, with repetition
    batch: int = 64
    learning_rate: float = 1e-3
    warmup_steps: int = 500
    ema_decay: float = 0.9995
    label_dropout: float = 0.1  # share of labels replaced by the null label (Ho & Salimans 2022)
    gradient_norm: float = 1.0
    seed: int = 0

    @property
    def steps(self) -> int:
        return max(1, self.images // self.batch)


def train(
    network: UNet,
    schedule: NoiseSchedule,
    images: Tensor,
    labels: Tensor,
    options: TrainingOptions,
    folder: Path,
    checkpoint_seconds: float = 60.0,
    report=print,
) -> dict[str, Tensor]:
    """Train to predict ε (Ho et al. 2020, Eq. 14) and return the EMA weights.

    images [N, C, H, W] in [-1, 1], labels [N]. The folder holds `checkpoint.pt` (replaced
    atomically) and `loss.csv`; where a checkpoint of the same options and data is found, it goes on from it.
    """
    if len(images) != len(labels):
        raise UsageError(f"{len(images)} images were given with {len(labels)} labels")
    if len(images) < options.batch:
        raise UsageError(f"a batch of {options.batch} cannot be taken from {len(images)} images")
    data = _mark(images, labels)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    device = next(network.parameters()).device
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    ema = {name: value.detach().clone() for name, value in network.state_dict().items()}
    step, spent_s, history = 0, 0.0, []

    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        try:
            saved = torch.load(checkpoint, map_location=device, weights_only=True)
            if not isinstance(saved, dict) or not saved.keys() >= CHECKPOINT:
                raise RuntimeError("a file of torch.save, but none of ours")
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise UsageError(f"{checkpoint} is not a readable checkpoint; remove it to start afresh") from error
        if saved["options"] != asdict(options):
            raise UsageError(
                f"{checkpoint} belongs to a run with other options ({saved['options']}); "
                "name another --out or remove it"
            )
        if saved.get("data", data) != data:  # older checkpoints do not say
            raise UsageError(f"{checkpoint} belongs to a run on other data; name another --out or remove it")
        try:
            network.load_state_dict(saved["network"])
        except RuntimeError as error:
            raise UsageError(
                f"{checkpoint} belongs to a network of another architecture; name another --out or remove it"
            ) from error
        optimizer.load_state_dict(saved["optimizer"])
        ema, step, spent_s, history = saved["ema"], saved["step"], saved["spent_s"], saved["history"]
        report(f"resumed at image {step * options.batch:,}")

    def save() -> None:
        state = {
            "options": asdict(options), "network": network.state_dict(), "ema": ema, "step": step,
            "optimizer": optimizer.state_dict(), "spent_s": spent_s, "history": history, "data": data,
        }  # fmt: skip
        partial = checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, checkpoint)
        with open(folder / "loss.csv", "w", newline="") as file:
            csv.writer(file).writerows([("images", "loss", "seconds"), *history])

    network.train()
    running, since_report, saved_at, lap = 0.0, 0, time.monotonic(), time.monotonic()
    start_step, start_s = step, spent_s
    while step < options.steps:
        loss = _training_step(network, schedule, images, labels, options, step, optimizer)
        step += 1
        decay = min(options.ema_decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            ema[name].lerp_(value, 1 - decay)
        running, since_report = running + loss, since_report + 1
        now = time.monotonic()
        spent_s, lap = spent_s + now - lap, now
        if step % 100 == 0 or step == options.steps:
            mean = running / since_report
            history.append((step * options.batch, round(mean, 6), round(spent_s, 1)))
            rate = (step - start_step) * options.batch / (spent_s - start_s)
            left_s = (options.steps - step) * options.batch / rate
            report(
                f"{step * options.batch:>9,} of {options.steps * options.batch:,} images  "
                f"loss {mean:.4f}  {rate:,.0f} images/s  {left_s / 60:.0f} min left"
            )
            running, since_report = 0.0, 0
        if now - saved_at > checkpoint_seconds:
            save()
            saved_at = now
    save()
    return ema


def _training_step(network, schedule, images, labels, options, step, optimizer) -> float:
    device = next(network.parameters()).device
    generator = _generator(options.seed, step)
    b = options.batch
    index = _batch_of_epoch(len(images), options, step)
    x0, label = images[index], labels[index].clone()
    # stratified timesteps: the same uniform law as independent ones, with less variance
    uniform = (torch.rand((), generator=generator) + torch.arange(b) / b) % 1
    t = (uniform * schedule.steps).long()
    noise = torch.randn(x0.shape, generator=generator)
    label[torch.rand(b, generator=generator) < options.label_dropout] = network.null_label
    x0, label, t, noise = (v.to(device) for v in (x0, label, t, noise))

    for group in optimizer.param_groups:
        warmup = min(1.0, (step + 1) / options.warmup_steps)
        group["lr"] = options.learning_rate * warmup * 0.5 * (1 + cos(pi * step / options.steps))
    optimizer.zero_grad(set_to_none=True)
    loss = F.mse_loss(network(schedule.add_noise(x0, t, noise), t, label), noise)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), options.gradient_norm)
    optimizer.step()
    return float(loss.detach())


def _mark(images: Tensor, labels: Tensor) -> list[int]:
    """Their number and a checksum, by which a checkpoint knows the data again."""
    return [len(images), zlib.crc32(labels.cpu().numpy().tobytes(), zlib.crc32(images.cpu().numpy().tobytes()))]


def _generator(seed: int, number: int) -> torch.Generator:
    """The generator of one step or epoch. A CPU generator takes the lower 32 bits of its seed and no others."""
    return torch.Generator().manual_seed((seed * 0x9E37_79B1 + number) % (1 << 32))  # odd: every seed its own


def _batch_of_epoch(count: int, options: TrainingOptions, step: int) -> Tensor:
    """Indices of batch `step` when each epoch is a fresh permutation of the data."""
    per_epoch = max(1, count // options.batch)
    epoch, position = divmod(step, per_epoch)
    key = (options.seed, count, epoch)
    if _permutation.get("key") != key:
        permutation = torch.randperm(count, generator=_generator(options.seed, (1 << 31) + epoch))
        _permutation.update(key=key, value=permutation)
    start = position * options.batch
    return _permutation["value"][start : start + options.batch]


_permutation: dict = {}
