"""Contenders beside the shipped ones: the `CONTENDERS` of a module, yours or the peers'."""

from functools import lru_cache

from bench.contenders import Contender
from sampler.errors import UsageError
from sampler.own_models import imported


@lru_cache
def planted(module: str | None) -> tuple[Contender, ...]:
    """Extra contenders by the modules, apart by commas, that list them (`package.module` or `path/to/file.py`)."""
    return tuple(contender for one in (module or "").split(",") if one for contender in _listed(one))


def _listed(module: str) -> tuple[Contender, ...]:
    found = getattr(imported(module, f"--contenders {module}"), "CONTENDERS", None)
    if not isinstance(found, list | tuple) or not all(isinstance(c, Contender) for c in found):
        raise UsageError(f"--contenders {module} holds no list CONTENDERS of bench.contenders.Contender")
    return tuple(found)
