"""A set's folder: its manifest, the journals of those who write, and files that are there whole or not at all.

`manifest.json` says what the set is and, once a run has ended, the SHA-256 of each file. While it runs, each rank
notes what it has written in a journal of its own, a line a file, after the file is on the disk. So a file counts only
where its bytes are those that were noted, and whatever a kill leaves behind is drawn again.
"""

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampler import strict_json
from sampler.errors import UsageError
from sampler.sets.identity import Identity

MANIFEST, LOCK, SCHEMA = "manifest.json", ".lock-", 1
SUFFIXES = {"png": ".png", "npz": ".npz", "safetensors": ".safetensors"}


@dataclass(frozen=True)
class Piece:
    """A file of the set: its name and the samples in it."""

    name: str
    ids: range


@dataclass(frozen=True)
class Folder:
    """The folder of a set."""

    path: Path
    identity: Identity

    def pieces(self, ids: range) -> list[Piece]:
        """The files that hold these samples (from a boundary of files on)."""
        size, suffix = self.identity.shard, SUFFIXES[self.identity.format]
        named = "{:08d}" if size == 1 else "shard-{:06d}"
        return [
            Piece(named.format(start // size) + suffix, range(start, min(start + size, ids.stop)))
            for start in range(ids.start, ids.stop, size)
        ]

    def noted(self) -> dict[str, str]:
        """SHA-256 of every file by the manifest and the journals."""
        found = dict(read_manifest(self.path)["files"])
        for journal in sorted(self.path.glob("journal-*.jsonl")):
            for line in journal.read_text().splitlines():
                try:
                    name, digest = strict_json.loads_older(line)
                except ValueError:
                    continue  # the last line of a killed process may be cut
                found[name] = digest
        return found

    def whole(self, pieces: list[Piece]) -> set[str]:
        """The names of those pieces whose files hold exactly the bytes that were noted."""
        noted = self.noted()
        return {p.name for p in pieces if p.name in noted and digest_of(self.path / p.name) == noted[p.name]}

    def write(self, name: str, content: bytes, rank: int) -> str:
        """Put a file in its place, whole and on the disk; returns its SHA-256."""
        write_durably(self.path / name, content, rank)
        return hashlib.sha256(content).hexdigest()

    def note(self, written: dict[str, str], rank: int) -> None:
        """Add files that are on the disk to the rank's journal."""
        journal = self.path / f"journal-{rank}.jsonl"
        with open(journal, "ab+") as file:
            # a line that a kill has cut is ended first, lest the next one be lost with it
            file.seek(max(file.tell() - 1, 0))
            cut = file.read(1) not in (b"", b"\n")
            file.write(b"\n" * cut + "".join(strict_json.dumps(pair) + "\n" for pair in written.items()).encode())
            file.flush()
            os.fsync(file.fileno())

    def difference(self) -> str:
        """The first thing in which the set that the folder holds differs from the one to be drawn, or ''."""
        return Identity.from_json(read_manifest(self.path)["run"]).difference(self.identity)

    def prepare(self, count: int) -> None:
        """Make the folder ready for a run, or refuse it as it is; what killed writers left half-written goes."""
        manifest = self.path / MANIFEST
        if manifest.exists():
            stored = read_manifest(self.path)
            if difference := self.difference():
                raise UsageError(f"{self.path} holds another set: {difference}; nothing was changed there")
            if stored["count"] > count:
                raise UsageError(
                    f"{self.path} is of {stored['count']:,} samples, and --count is {count:,}; it may grow"
                )
            if self.identity.shard > 1 and stored["count"] % self.identity.shard and stored["count"] != count:
                raise UsageError(
                    f"{self.path} ends in a shard of fewer than {self.identity.shard:,} samples, so it cannot grow"
                )
        elif found := next((p for p in self.path.iterdir() if not (is_partial(p) or p.name.startswith(LOCK))), None):
            raise UsageError(f"{self.path} holds {found.name!r}, and no {MANIFEST}: name a folder that is new or empty")
        for partial in filter(is_partial, self.path.iterdir()):
            partial.unlink()
        if not manifest.exists() or stored["count"] != count:
            files = self.noted() if manifest.exists() else {}
            self._write_manifest(count, files)

    def finish(self, count: int, world: int) -> str:
        """Write down every file's SHA-256, clear away what only a run needs, and return the set's SHA-256."""
        pieces = self.pieces(range(count))
        noted = self.noted()
        self._write_manifest(count, {p.name: noted[p.name] for p in pieces})
        for journal in self.path.glob("journal-*.jsonl"):
            journal.unlink()
        for lock in self.path.glob(f"{LOCK}*"):
            if int(lock.name.removeprefix(LOCK)) >= world:  # of a larger number of ranks, one of which was killed
                lock.unlink()
        return read_manifest(self.path)["set"]

    def _write_manifest(self, count: int, files: dict[str, str]) -> None:
        manifest = {"schema": SCHEMA, "run": self.identity.json(), "count": count, "set": set_digest(files),
                  "files": dict(sorted(files.items()))}  # fmt: skip
        write_durably(self.path / MANIFEST, (strict_json.dumps(manifest, indent=1) + "\n").encode(), 0)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a folder; UsageError where it is none."""
    file = path / MANIFEST
    try:
        stored = strict_json.loads_older(file.read_text())
        if stored["schema"] != SCHEMA:
            raise UsageError(f"{file} is of schema {stored['schema']}; this version reads {SCHEMA}")
        Identity.from_json(stored["run"])
        if not isinstance(stored["count"], int) or not all(isinstance(v, str) for v in stored["files"].values()):
            raise TypeError("its count or its files are not what they should be")
        return stored
    except FileNotFoundError:
        raise UsageError(f"{path} holds no {MANIFEST}, so no set of samples") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"{file} cannot be read as a manifest ({type(error).__name__}: {error}); nothing was changed in the folder"
        ) from None


def faults(path: Path) -> list[str]:
    """What is wrong with a set, a sentence each: files that lack, are not as they were, or do not belong to it."""
    stored = read_manifest(path)
    folder = Folder(path, Identity.from_json(stored["run"]))
    pieces, files = folder.pieces(range(stored["count"])), stored["files"]
    found = []
    for piece in pieces:
        digest = digest_of(path / piece.name)
        if digest is None:
            found.append(f"{piece.name} is missing")
        elif piece.name not in files:
            found.append(f"{piece.name} is not in the manifest: the set is unfinished, or the manifest was changed")
        elif digest != files[piece.name]:
            found.append(f"{piece.name} does not hold the bytes that were written")
    known = {p.name for p in pieces}
    found += [f"{name} is in the manifest and does not belong to the set" for name in sorted(files.keys() - known)]
    for file in sorted(path.iterdir()):
        if file.name not in known and file.name != MANIFEST:
            found.append(f"{file.name} does not belong to the set")
    if stored["set"] != set_digest(files):
        found.append("the manifest's digest of the set is not that of its files: it was changed")
    return found


def set_digest(files: dict[str, str]) -> str:
    """SHA-256 of the files' names and digests."""
    return hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in sorted(files.items())).encode()).hexdigest()


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file, or None where there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError):
        return None


def is_partial(path: Path) -> bool:
    """Whether a file is what a writer had not finished."""
    return path.name.startswith(".") and ".partial-" in path.name


def write_durably(path: Path, content: bytes, rank: int) -> None:
    """Write beside the place, push it to the disk, and rename."""
    partial = path.with_name(f".{path.name}.partial-{rank}")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def alone(path: Path, rank: int) -> Iterator[None]:
    """Hold the rank's place in a folder; UsageError where another process has it."""
    with open(path / f"{LOCK}{rank}", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"another process is writing to {path} as rank {rank}") from None
        try:
            yield
        finally:
            Path(lock.name).unlink(missing_ok=True)


@contextmanager
def disk_faults_told(path: Path) -> Iterator[None]:
    """What a disk refuses becomes a sentence that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UsageError(
                f"the disk of {path} is full; what was finished is kept: make room and give the same command again"
            ) from None
        raise UsageError(f"{path} cannot be written to: {error.strerror or error}") from None
