"""What decides a set of pictures, as one digest: weights, table, seams and their code, noise, batch, software.

Two sets with one digest are the same pictures; a changed kernel, seam or coefficient gives another digest, so
that no old picture is judged in its place. Comments, docstrings and formatting change nothing.
"""

import ast
import functools
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from sampler import cpu, generate, graphs, guidance, noise, posterior, precision, runtime, unet, variants
from sampler.trajectory import Trajectory
from sampler.variants import Variant

# of `variants` and `generate` only what runs, so that a new variant leaves the pictures of the others alone
ALWAYS: tuple[Any, ...] = (
    noise,
    posterior,
    guidance,
    precision,
    runtime,
    unet,
    variants.build,
    variants.run,
    variants.Sampler,
    variants.Update,
    generate.initial_noise,
    generate.to_unit,
)
KERNELS = Path(__file__).parents[2] / "kernels"


def of_network(network: nn.Module) -> str:
    """Digest of a network's weights, names and shapes included."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def of_trajectory(path: Trajectory) -> str:
    """Digest of the timesteps and of every bit of the table."""
    digest = hashlib.sha256(repr(path.timesteps).encode())
    digest.update(path.rows.contiguous().numpy().tobytes())
    return digest.hexdigest()


def of_variant(variant: Variant) -> str:
    """Digest of the seams: the code of each, what it was made with, and the kernels where one is called."""
    digest = hashlib.sha256()
    seams = (variant.layout, variant.precision, variant.guide, variant.update.load, variant.runtime)
    for thing in (*ALWAYS, *([graphs] if variant.captures else []), *seams):
        for part in _described(thing):
            digest.update(part.encode())
    digest.update(repr((variant.guided_between, variant.update.draws, variant.update.feeds)).encode())
    if variant.update.opaque:
        for file in sorted(p for p in KERNELS.iterdir() if p.suffix in (".py", ".cpp", ".h")):
            digest.update(_code(file.read_text()).encode() if file.suffix == ".py" else file.read_bytes())
    return digest.hexdigest()


def of(network: nn.Module, path: Trajectory, variant: Variant, *others: Any) -> str:
    """Digest of everything that decides pictures; others: guidance, seed, batch, labels, as plain values."""
    device = next(network.parameters()).device
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu.capability()
    parts = (of_network(network), of_trajectory(path), of_variant(variant), torch.__version__, kind, repr(others))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _described(thing: Any) -> Iterator[str]:
    """A function's, class's or module's code, and the values that a closure or a partial holds."""
    if isinstance(thing, functools.partial):
        yield repr((thing.args, sorted(thing.keywords.items())))
        thing = thing.func
    yield _code(textwrap.dedent(inspect.getsource(thing)))
    if isinstance(thing, Callable) and not isinstance(thing, type | ModuleType):  # type: ignore[arg-type]
        for cell in getattr(thing, "__closure__", None) or ():
            held = cell.cell_contents
            yield from _described(held) if inspect.isfunction(held) else (repr(held),)


def _code(source: str) -> str:
    """Source without comments, docstrings and formatting; a fragment that is no statement is taken as it stands."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return source
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return ast.dump(tree)
