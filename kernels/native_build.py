"""Compiles the C++ kernel on its first use, once for each source, compiler, processor and PyTorch, and loads it."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from ctypes import c_bool, c_float, c_int64, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path

import torch

SOURCES = [Path(__file__).with_name(name) for name in ("native.cpp", "normal.h")]
# No flag may let the compiler assume that there is no NaN; traps and errno only hinder vector code.
FLAGS = [
    "-std=c++20", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math",
    "-fopenmp-simd", "-Wno-ignored-attributes", "-DNDEBUG", "-shared", "-fPIC",
]  # fmt: skip

_TORCH = Path(torch.__file__).parent
# The kernel looks into PyTorch's tensors: their header (C++20), and the library that this process has loaded already
HEADERS, LIBRARIES = ["-isystem", str(_TORCH / "include")], ["-L", str(_TORCH / "lib"), "-lc10"]

# destination, x, conditional, unconditional, scale, row, before, x0, z or sample ids
_UPDATE = [c_void_p, c_void_p, c_void_p, c_void_p, c_float, c_void_p, c_void_p, c_void_p, c_void_p]
_KEY = [c_void_p, c_int64, c_int64, c_uint64, c_uint32]  # ids, batch, elements, seed, step
FUNCTIONS = {
    "posterior": (c_bool, _UPDATE),
    "posterior_drawn": (c_bool, [*_UPDATE, c_uint64, c_uint32]),
    "normal": (None, [c_void_p, *_KEY]),
    "words": (None, [c_void_p, *_KEY]),
}


@cache
def library() -> ctypes.CDLL:
    """The loaded kernel; RuntimeError with one sentence where it cannot be built."""
    compiler = shutil.which("g++")
    if compiler is None:
        raise RuntimeError("the native kernel needs a C++ compiler: install g++ (Debian: apt install g++)")
    path = _built(compiler, cache_folder())
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:  # such as a file system mounted noexec, or another C++ library than g++'s
        raise RuntimeError(
            f"the native kernel does not load ({error}); if its folder is the reason, set DDPM_BENCH_CACHE to another"
        ) from error
    for name, (result, arguments) in FUNCTIONS.items():
        getattr(loaded, name).restype, getattr(loaded, name).argtypes = result, arguments
    return loaded


def cache_folder() -> Path:
    """$DDPM_BENCH_CACHE, else ~/.cache/ddpm-bench."""
    return Path(os.environ.get("DDPM_BENCH_CACHE") or Path.home() / ".cache" / "ddpm-bench")


def _built(compiler: str, folder: Path) -> Path:
    # The predefined macros name the compiler's version and every instruction set of this processor
    macros = _run([compiler, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull])
    parts = [macros, *FLAGS, torch.__version__, *(source.read_text() for source in SOURCES)]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]
    finished = folder / f"native-{key}.so"
    if finished.exists():
        return finished
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="building-", dir=folder) as building:
            fresh = Path(building) / "native.so"
            _run([compiler, *FLAGS, *HEADERS, str(SOURCES[0]), *LIBRARIES, "-o", str(fresh)])
            os.replace(fresh, finished)  # atomic: of two processes that race, the last one wins, whole
    except OSError as error:
        raise RuntimeError(
            f"the native kernel cannot be kept in {folder} ({error.strerror}); "
            "set DDPM_BENCH_CACHE to a folder that can be written"
        ) from error
    return finished


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr.strip()]
        raise RuntimeError(
            f"the native kernel does not compile with {command[0]} (g++ 10 or newer is needed): {errors[0][:500]}"
        )
    return done.stdout
