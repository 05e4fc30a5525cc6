"""The shipped network: a U-Net with residual blocks, attention and a time and class embedding."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class UNetConfig:
    """Size of a `UNet`.

    image_channels, image_size: channels and side length in pixels of the (square) image.
    patch: side of the pixel-unshuffle in front of the network; 1 works at full resolution.
    widths: channels at each resolution; each further entry halves the resolution.
    blocks: residual blocks a resolution, on the way down and on the way up.
    attention: indices into `widths` whose blocks are followed by self-attention.
    heads: attention heads.
    middle_blocks: residual blocks at the bottom, with attention between them.
    wide_skips: also carry the stem's and the downsamplings' outputs across, as Ho et al. (2020) do.
    classes: number of labels, or 0 for an unconditional network. Label `classes` is the null label.
    """

    image_channels: int = 1
    image_size: int = 28
    patch: int = 2
    widths: tuple[int, ...] = (32, 64)
    blocks: int = 1
    attention: tuple[int, ...] = (1,)
    heads: int = 4
    middle_blocks: int = 1
    wide_skips: bool = False
    classes: int = 10


class ResidualBlock(nn.Module):
    """Norm-SiLU-convolution twice; the embedding scales and shifts the second norm."""

    def __init__(self, channels_in: int, channels_out: int, embedding: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.embed = nn.Linear(embedding, 2 * channels_out)
        self.norm2 = nn.GroupNorm(8, channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.skip = nn.Identity() if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.embed(embedding)[:, :, None, None].chunk(2, dim=1)  # [B, C, 1, 1] each
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        return self.skip(x) + h


class SelfAttention(nn.Module):
    """Multi-head attention over the pixels of one resolution.

    On CUDA PyTorch fuses it only where the channels of a head lie side by side: behind a channels-last convolution, and
    not behind one in NCHW, as the reference has it.
    """

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.project.weight)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # [B, heads, pixels, C / heads] each
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.project(y.transpose(-1, -2).reshape(b, c, h, w))


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoids of the timestep, [B] -> [B, dim] (Ho et al. 2020; Vaswani et al. 2017, 3.5)."""
    half = dim // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = t.to(torch.float32)[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class UNet(nn.Module):
    """`forward(x, t, condition) -> out`, all the sampler asks of a denoiser.

    x: [B, image_channels, image_size, image_size] in [-1, 1] plus noise.
    t: [B] integer timesteps in 0…T-1.
    condition: [B] integer labels (`null_label` for none), or [B, embedding] floats to use as they
    are, or None (the same as the null label).
    Returns what the network was trained to predict, in x's shape.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        widths, embedding = config.widths, 4 * config.widths[0]
        self.embedding_dim = embedding
        self.time1 = nn.Linear(widths[0], embedding)
        self.time2 = nn.Linear(embedding, embedding)
        self.label = nn.Embedding(config.classes + 1, embedding)
        pixels = config.image_channels * config.patch**2
        self.stem = nn.Conv2d(pixels, widths[0], 3, padding=1)

        carried = [widths[0]] if config.wide_skips else []
        self.down = nn.ModuleList()  # per resolution: blocks, then a halving (but the last)
        channels = widths[0]
        for level, width in enumerate(widths):
            blocks = nn.ModuleList()
            for _ in range(config.blocks):
                blocks.append(self._block(channels, width, level))
                channels = width
                carried.append(channels)
            stage = nn.ModuleDict({"blocks": blocks})
            if level + 1 < len(widths):
                stage["downsample"] = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
                if config.wide_skips:
                    carried.append(channels)
            self.down.append(stage)

        self.middle = nn.ModuleList()
        for i in range(config.middle_blocks):
            if i:
                self.middle.append(SelfAttention(channels, config.heads))
            self.middle.append(ResidualBlock(channels, channels, embedding))

        self.up = nn.ModuleList()  # per resolution from the bottom: blocks, then a doubling
        for level, width in reversed(list(enumerate(widths))):
            blocks = nn.ModuleList()
            for _ in range(config.blocks + config.wide_skips):
                blocks.append(self._block(channels + carried.pop(), width, level))
                channels = width
            stage = nn.ModuleDict({"blocks": blocks})
            if level:
                stage["upsample"] = nn.Conv2d(channels, widths[level - 1], 3, padding=1)
                channels = widths[level - 1]
            self.up.append(stage)

        self.norm = nn.GroupNorm(8, channels)
        self.head = nn.Conv2d(channels, pixels, 3, padding=1)
        nn.init.zeros_(self.head.weight)

    @property
    def null_label(self) -> int:
        """The label that stands for 'no label'."""
        return self.config.classes

    def _block(self, channels_in: int, channels_out: int, level: int) -> nn.ModuleList:
        block = nn.ModuleList([ResidualBlock(channels_in, channels_out, self.embedding_dim)])
        if level in self.config.attention:
            block.append(SelfAttention(channels_out, self.config.heads))
        return block

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        if condition is None:
            condition = torch.full_like(t, self.null_label)
        if not condition.is_floating_point():
            condition = self.label(condition)
        sinusoids = timestep_embedding(t, self.config.widths[0]).to(self.time1.weight.dtype)
        e = self.time2(F.silu(self.time1(sinusoids)))
        e = F.silu(e + condition.to(e.dtype))  # [B, embedding]

        h = self.stem(F.pixel_unshuffle(x, self.config.patch))
        skips = [h] if self.config.wide_skips else []
        for stage in self.down:
            assert isinstance(stage, nn.ModuleDict)
            for block in _listed(stage["blocks"]):
                h = _apply(block, h, e)
                skips.append(h)
            if "downsample" in stage:
                h = stage["downsample"](h)
                if self.config.wide_skips:
                    skips.append(h)
        h = _apply(self.middle, h, e)
        for stage in self.up:
            assert isinstance(stage, nn.ModuleDict)
            for block in _listed(stage["blocks"]):
                h = _apply(block, torch.cat([h, skips.pop()], dim=1), e)
            if "upsample" in stage:
                h = stage["upsample"](F.interpolate(h, scale_factor=2.0, mode="nearest"))
        h = self.head(F.silu(self.norm(h)))
        return F.pixel_shuffle(h, self.config.patch)


def _listed(modules: nn.Module) -> nn.ModuleList:
    assert isinstance(modules, nn.ModuleList)
    return modules


def _apply(layers: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
    for layer in _listed(layers):
        h = layer(h, embedding) if isinstance(layer, ResidualBlock) else layer(h)
    return h
