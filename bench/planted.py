"""Contenders beside the shipped ones: the `CONTENDERS` of a module, yours or the peers'."""

from functools import lru_cache

from bench.contenders import Contender
from sampler.errors import UsageError
from sampler.own_models import imported


@lru_cache
def planted(module: str | None) -> tuple[Contender, ...]:
    """Extra contenders by the module that lists them (`package.module` or `path/to/file.py`); none where none is."""
    if not module:
        return ()
    found = getattr(imported(module, f"--contenders {module}"), "CONTENDERS", None)
    if not isinstance(found, list | tuple) or not all(isinstance(c, Contender) for c in found):
        raise UsageError(f"--contenders {module} holds no list CONTENDERS of bench.contenders.Contender")
    return tuple(found)
