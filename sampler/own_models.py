"""Your own model by its name: `package.module:factory`, `path/to/file.py:factory`, or a folder saved by diffusers."""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from sampler.adapters import adapted
from sampler.errors import UsageError, in_one_line, unknown
from sampler.models import RECIPES, Model
from sampler.schedule import NoiseSchedule
from sampler.trajectory import PREDICTIONS

HOW = "package.module:factory, path/to/file.py:factory, or a folder saved by diffusers"


def is_own(name: str) -> bool:
    """Whether a model's name is that of an own model, and not of a shipped one."""
    return name not in RECIPES and (":" in name or Path(name).is_dir())


def origin(name: str) -> str:
    """Where an own model comes from, whole: two of one name in two folders have two. Nothing is imported."""
    where, _, attribute = name.rpartition(":") if ":" in name else (name, "", "")
    path = Path(where)
    if not where.endswith(".py") and ":" in name:  # a package's module, if it lies where the caller stands
        module = Path(*where.split("."))
        path = next((p for p in (module.with_suffix(".py"), module / "__init__.py") if p.is_file()), Path())
        if not path.name:
            return name
    return f"{path.resolve()}:{attribute}"


def load(name: str, device: torch.device) -> Model:
    """The model that a factory returns, or that a folder holds, in evaluation mode on the device.

    The random numbers that a factory asks of torch are the same in every process.
    """
    if not is_own(name):
        error = unknown("model", name, RECIPES)
        raise UsageError(f"{error}; or your own: {HOW}")
    factory: Callable[[], Any] = _factory(name) if ":" in name else lambda: _saved_folder(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        made = _guarded(f"--model {name}", "failed", factory)
    model = adapted(made, name)
    check_record(model)
    try:
        decode = model.decode.eval().to(device) if isinstance(model.decode, nn.Module) else model.decode
        return replace(model, network=model.network.eval().to(device), decode=decode)
    except (RuntimeError, NotImplementedError) as error:
        raise UsageError(f"model {name!r} cannot be moved to {str(device)!r}: {in_one_line(error)}") from error


def check_record(model: Model) -> None:
    """Refuse a record whose fields no sampler could use."""
    name, shape = model.name, model.shape
    if not isinstance(model.network, nn.Module):
        raise UsageError(
            f"model {name!r}: its network is a {type(model.network).__name__}; a torch.nn.Module is needed, "
            "called as network(x, t, label)"
        )
    if len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise UsageError(f"model {name!r}: shape {shape} is not (channels, height, width), three positive integers")
    if not isinstance(model.schedule, NoiseSchedule):
        raise UsageError(
            f"model {name!r}: its schedule is a {type(model.schedule).__name__}; sampler.linear, cosine and "
            "from_betas make one"
        )
    if model.prediction not in PREDICTIONS:
        raise unknown("prediction", model.prediction, PREDICTIONS)
    if not isinstance(model.classes, int) or model.classes < 0:
        raise UsageError(f"model {name!r}: classes = {model.classes}; it is the number of labels, 0 for none")
    null = model.null_label
    if null is not None and not isinstance(null, int):
        raise UsageError(f"model {name!r}: null_label = {null!r}; it is an integer, or None where there is none")
    if null in range(model.classes):
        raise UsageError(
            f"model {name!r}: null_label = {null}, but label {null} is one of its classes: give the label outside "
            f"0…{model.classes - 1} that it was trained with for 'no label', or None where there is none"
        )


def _factory(name: str) -> Callable[[], Any]:
    where, _, attribute = name.rpartition(":")
    module = imported(where, f"--model {name}")
    factory = getattr(module, attribute, None)
    if not callable(factory):
        what = "has nothing called" if factory is None else "does not hold a function called"
        raise UsageError(f"--model {name}: {where} {what} {attribute!r}")
    return factory


def imported(where: str, asked: str) -> ModuleType:
    """A module of somebody's by its name or its file; `asked` is what was asked for, to begin a refusal with."""
    return _from_file(asked, Path(where)) if where.endswith(".py") else _from_package(asked, where)


def _from_file(asked: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"{asked}: there is no file {path}")
    path = path.resolve()
    spec = importlib.util.spec_from_file_location(f"own_model_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where pickle and the compiler look for its classes
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # its neighbours can be imported, as a script's can
    _guarded(asked, "cannot be imported", lambda: spec.loader.exec_module(module))  # type: ignore[union-attr]
    return module


def _from_package(asked: str, where: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    return _guarded(asked, "cannot be imported", lambda: importlib.import_module(where))


def _guarded(asked: str, what: str, call: Callable[[], Any]) -> Any:
    """Call somebody's code; whatever it raises becomes a sentence that says where."""
    try:
        return call()
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
        frames = [f for f in frames if not f.filename.startswith("<frozen")]
        at = f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
        said = in_one_line(error) if isinstance(error, Exception) else f"it ended the program ({error.code})"
        raise UsageError(f"{asked}: it {what}: {said}{at}") from error


def _saved_folder(name: str) -> Any:
    from sampler.adapters import of_diffusers

    return of_diffusers.load_folder(Path(name))
