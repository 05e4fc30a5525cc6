"""Networks of diffusers: UNet2DModel, UNet2DConditionModel and DiTTransformer2DModel, with the schedule of a scheduler.

What is read of a scheduler is how the network was trained (betas, what it predicts, the bound on x0); which timesteps
are then visited, and how, is decided by a `Trajectory`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sampler import strict_json
from sampler.errors import UsageError, in_one_line
from sampler.models import Model
from sampler.schedule import NoiseSchedule, from_betas

PREDICTIONS = {"epsilon": "epsilon", "sample": "x0", "v_prediction": "v"}
NETWORKS = ("UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel")
INDEX, NETWORK_CONFIG, SCHEDULER_CONFIG = "model_index.json", "config.json", "scheduler_config.json"


def model(
    network: Any,
    scheduler: Any,
    *,
    name: str = "diffusers",
    null_label: int | None = None,
    embeddings: Tensor | None = None,
    vae: nn.Module | None = None,
) -> Model:
    """A network of diffusers and the scheduler it was trained with.

    null_label: of a UNet2DModel with labels, the one that stands for none; without it there is no guidance. A DiT
    knows its own. embeddings: [K + 1, tokens, dim], what a UNet2DConditionModel is conditioned on: label k is row k,
    and the last row stands for none. vae: decodes pictures from latents, outside the loop.
    """
    kind, config = type(network).__name__, network.config
    if kind not in NETWORKS:
        raise UsageError(f"diffusers' {kind} has no adapter; there are adapters for {', '.join(NETWORKS)}")
    schedule, prediction = schedule_of(scheduler), prediction_of(scheduler)
    if prediction == "epsilon" and float(schedule.betas[-1]) == 1:
        raise UsageError(
            "the scheduler rescales to zero terminal SNR (rescale_betas_zero_snr), where x0 cannot be computed from ε; "
            "that needs a network that predicts v or x0"
        )
    size = config.sample_size
    if size is None:
        raise UsageError(f"the {kind} does not say its sample_size; set it in its configuration")
    height, width = (size, size) if isinstance(size, int) else size
    seam: nn.Module
    if kind == "UNet2DConditionModel":
        if embeddings is None:
            raise UsageError(
                "a UNet2DConditionModel is conditioned on embeddings: write a factory that returns "
                "sampler.adapters.of_diffusers.model(unet, scheduler, embeddings=…): a row a prompt, the last for none"
            )
        seam, classes, null_label = OnEmbeddings(network, embeddings), len(embeddings) - 1, len(embeddings) - 1
    elif kind == "DiTTransformer2DModel":
        embedder = network.transformer_blocks[0].norm1.emb.class_embedder
        seam, classes = OnLabels(network), int(embedder.num_classes)
        null_label = classes if embedder.embedding_table.num_embeddings > classes else None
    else:
        seam, classes = OnLabels(network), config.num_class_embeds or 0
        if classes and null_label is not None:
            if null_label != classes - 1:
                raise UsageError(f"null_label = {null_label}; it must be the last of the {classes} class embeddings")
            classes = null_label
    return Model(
        name, seam, (config.in_channels, height, width), schedule, prediction, classes, null_label, trained=True,
        about=f"{kind} of diffusers", clip=clip_of(scheduler), decode=None if vae is None else Decoder(vae),
    )  # fmt: skip


def pipeline(made: Any, name: str) -> Model:
    """The model in a pipeline of diffusers (a DDPMPipeline, DDIMPipeline or DiTPipeline, say)."""
    network = getattr(made, "unet", None) or getattr(made, "transformer", None)
    if network is None or getattr(made, "scheduler", None) is None:
        raise UsageError(
            f"--model {name}: its factory returned a {type(made).__name__} of diffusers, in which there is no network "
            "with its scheduler; return sampler.adapters.of_diffusers.model(network, scheduler)"
        )
    return model(network, made.scheduler, name=name, vae=getattr(made, "vae", None))


def load_folder(folder: Path) -> Model:
    """The model in a folder that `save_pretrained` wrote: of a pipeline, or of a network alone.

    A network alone has no schedule; a scheduler_config.json beside it is read, else it is DDPMScheduler's default.
    """
    diffusers = _diffusers()
    if (folder / INDEX).is_file():
        parts = _json(folder / INDEX)
        part = next((key for key in ("unet", "transformer") if key in parts), None)
        if part is None or "scheduler" not in parts:
            raise UsageError(f"{folder / INDEX} names no network with a scheduler")
        network = _loaded(diffusers, parts[part][1], folder / part)
        scheduler = _loaded(diffusers, parts["scheduler"][1], folder / "scheduler")
        vae = _loaded(diffusers, parts["vae"][1], folder / "vae") if parts.get("vae", [None])[0] else None
        return model(network, scheduler, name=folder.name, vae=vae)
    if not (folder / NETWORK_CONFIG).is_file():
        raise UsageError(f"{folder} is no folder saved by diffusers: it holds neither {INDEX} nor {NETWORK_CONFIG}")
    network = _loaded(diffusers, _json(folder / NETWORK_CONFIG).get("_class_name", ""), folder)
    if (folder / SCHEDULER_CONFIG).is_file():
        scheduler = _loaded(diffusers, _json(folder / SCHEDULER_CONFIG).get("_class_name", ""), folder)
    else:
        scheduler = diffusers.DDPMScheduler()
    return model(network, scheduler, name=folder.name)


def schedule_of(scheduler: Any) -> NoiseSchedule:
    """The betas of a scheduler, rescaled where it rescales them."""
    betas = getattr(scheduler, "betas", None)
    if betas is None:
        raise UsageError(f"diffusers' {type(scheduler).__name__} has no betas; a scheduler of a DDPM is needed")
    return from_betas(betas)


def prediction_of(scheduler: Any) -> str:
    """What the network predicts, in this package's word for it."""
    said = scheduler.config.get("prediction_type", "epsilon")
    if said not in PREDICTIONS:
        raise UsageError(f"the scheduler says prediction_type = {said!r}; known are {', '.join(PREDICTIONS)}")
    return PREDICTIONS[said]


def clip_of(scheduler: Any) -> float | None:
    """The bound that the scheduler keeps x0 within, or None."""
    config = scheduler.config
    if config.get("thresholding"):
        raise UsageError("the scheduler thresholds x0 by what is in the picture; set thresholding=False")
    return float(config.get("clip_sample_range", 1.0)) if config.get("clip_sample", False) else None


class OnLabels(nn.Module):
    """A network of diffusers as a denoiser (x, t, label); of one that also predicts its variance, the first half."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.network(x, t, class_labels=condition, return_dict=False)[0][:, : x.shape[1]]


class OnEmbeddings(nn.Module):
    """A UNet2DConditionModel as a denoiser (x, t, label), where a label is a row of a table of embeddings."""

    table: Tensor

    def __init__(self, network: nn.Module, embeddings: Tensor):
        super().__init__()
        if embeddings.dim() != 3 or len(embeddings) < 2:
            raise UsageError(
                f"embeddings are {list(embeddings.shape)}; [labels + 1, tokens, dim] is needed, the last row for none"
            )
        self.network = network
        self.register_buffer("table", embeddings)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return self.network(x, t, self.table[condition], return_dict=False)[0][:, : x.shape[1]]


class Decoder(nn.Module):
    """Pictures [B, 3, H, W] in [-1, 1] from the latents that a VAE's encoder would have given."""

    def __init__(self, vae: nn.Module):
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        scaling, shift = self._factors()
        return self.vae.decode(latents / scaling + shift, return_dict=False)[0]  # type: ignore[operator]

    def extra_repr(self) -> str:
        """What decides its pictures besides its weights: a set of samples is known by it."""
        return "scaling={}, shift={}".format(*self._factors())

    def _factors(self) -> tuple[float, float]:
        config: Any = self.vae.config
        return config.scaling_factor, getattr(config, "shift_factor", None) or 0.0


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise UsageError(f"a folder saved by diffusers needs diffusers, which is not installed ({error})") from None
    return diffusers


def _loaded(diffusers: Any, kind: str, folder: Path) -> Any:
    cls: Callable[..., Any] | None = getattr(diffusers, kind, None) if kind else None
    if cls is None:
        raise UsageError(f"{folder} is of the class {kind!r}, which this diffusers ({diffusers.__version__}) lacks")
    try:
        return cls.from_pretrained(folder, local_files_only=True)  # type: ignore[attr-defined]
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise UsageError(f"{folder} cannot be loaded by diffusers: {in_one_line(error)}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        return strict_json.loads_older(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error})") from None
