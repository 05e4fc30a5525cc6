"""What a training run writes down beside its weights, so that a model card need not be typed by hand."""

import hashlib
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from sampler import strict_json
from sampler.errors import UsageError
from sampler.files import replacing
from sampler.training import TrainingOptions


@dataclass(frozen=True)
class TrainingRecord:
    """How a weights file came about; `sha256` ties the record to the file."""

    model: str
    options: TrainingOptions
    device: str
    threads: int
    parameters: int
    data_images: int
    seconds: float  # of training, over all resumptions
    final_loss: float
    sha256: str
    machine: str
    torch: str
    python: str

    @property
    def command(self) -> str:
        o = self.options
        return (
            f"python -m sampler train --model {self.model} --images {o.images} --batch {o.batch} "
            f"--seed {o.seed} --device {self.device} --threads {self.threads} --out FOLDER"
        )

    def write(self, path: Path) -> None:
        with replacing(path) as partial:
            partial.write_text(strict_json.dumps(asdict(self), indent=2) + "\n")


def read_record(path: Path) -> TrainingRecord:
    """The record that `write` wrote."""
    try:
        facts = strict_json.loads_older(path.read_text())
        return TrainingRecord(**{**facts, "options": TrainingOptions(**facts["options"])})
    except OSError:
        raise UsageError(f"no training record at {path}; `python -m sampler train` writes it") from None
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} is not a training record ({error})") from None


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def describe_machine(device: torch.device) -> str:
    """The processor or GPU, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} logical cores"
