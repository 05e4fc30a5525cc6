"""Where a command writes: refused before the work rather than after it, and replaced whole or not at all."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sampler.errors import UsageError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when all went well."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def writable_folder(folder: Path, option: str = "--out") -> Path:
    """The folder, made where it is missing; option: what names another."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror}; name another ({option})") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {folder} cannot be written to; name another ({option})")
    return folder


def here_or_in_the_cache(folder: Path) -> Path:
    """The folder; where it cannot be made, as in a checkout that is only read, one of its name in the user's cache."""
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    if os.access(nearest, os.W_OK | os.X_OK):
        return folder
    return Path(os.environ.get("DDPM_BENCH_CACHE") or Path.home() / ".cache" / "ddpm-bench") / folder.name


def writable_picture(path: Path, formats: Sequence[str] = (".png",)) -> Path:
    """A path for a picture in one of the formats, in a folder that can be written to."""
    if path.suffix.lower() not in formats:
        raise UsageError(f"{path} must end in {' or '.join(formats)}, the format that is written")
    writable_folder(path.parent)
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file")
    return path
