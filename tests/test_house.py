"""kernels <- sampler <- bench: each package imports only what stands to its left."""

import ast
import importlib.util
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {"kernels": set(), "sampler": {"kernels"}, "bench": {"kernels", "sampler"}}
HOUSE = {*MAY_IMPORT, "tests", "results"}
DOOR = "sampler/variants.py"  # the one place where sampler reaches kernels, and only inside a function


def violations(root: Path) -> list[str]:
    """Every import under `root` that breaks the rule, as 'file:line: what is wrong'."""
    found = []
    for package, allowed in MAY_IMPORT.items():
        for path in sorted((root / package).rglob("*.py")):
            file = path.relative_to(root)
            for line, target, lazy in house_imports(path, file.parts):
                if target == package:
                    continue
                if target not in allowed:
                    found.append(f"{file}:{line}: {package} imports {target}")
                elif package == "sampler" and not (file.as_posix() == DOOR and lazy):
                    found.append(f"{file}:{line}: sampler may import {target} only in a function of {DOOR}")
    return found


def house_imports(path: Path, parts: tuple[str, ...]) -> Iterator[tuple[int, str, bool]]:
    """(line, package, whether inside a function) of each import of one of our own packages."""
    for node, lazy in walk(ast.parse(path.read_bytes(), str(path)), lazy=False):
        for name in imported_names(node, parts):
            if (package := name.split(".")[0]) in HOUSE:
                yield node.lineno, package, lazy


def walk(node: ast.AST, lazy: bool) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below this one, and whether it runs only when a function is called."""
    for field, value in ast.iter_fields(node):
        # a function's decorators and defaults run where it is defined; its body runs later
        is_body = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and field == "body"
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child, lazy or is_body
                yield from walk(child, lazy or is_body)


def imported_names(node: ast.AST, parts: tuple[str, ...]) -> list[str]:
    """The full dotted names that a statement or call imports, in the file of these path parts."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=module, names=names, level=0):
            return [f"{module}.{alias.name}" for alias in names]
        case ast.ImportFrom(module=module, names=names, level=level):
            base = ".".join([*parts[:-level], *([module] if module else [])])
            return [f"{base}.{alias.name}".lstrip(".") for alias in names]
        case ast.Call(
            func=ast.Attribute(attr="import_module" | "find_spec") | ast.Name(id="import_module" | "__import__"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            return [name]
    return []


def test_imports_point_left() -> None:
    assert violations(ROOT) == []


def test_the_checker_sees_this_house() -> None:
    for package in MAY_IMPORT:
        assert (ROOT / package / "__init__.py").exists()
    seen = set()
    for path in ROOT.glob("sampler/**/*.py"):
        seen |= {package for _, package, _ in house_imports(path, path.relative_to(ROOT).parts)}
    assert seen == {"sampler", "kernels"}, "the checker no longer finds the imports that are known to be there"


PLANTED = [
    ("kernels/a.py", "import sampler.noise"),
    ("kernels/a.py", "from sampler import noise"),
    ("kernels/a.py", "import os, bench"),
    ("kernels/deep/er/a.py", "from ....sampler import noise"),
    ("kernels/deep/er/a.py", "from .... import sampler"),
    ("kernels/a.py", "def f():\n    from bench import gate"),
    ("sampler/a.py", "from bench.gate import verdict"),
    ("sampler/deep/a.py", "import importlib\nimportlib.import_module('bench.gate')"),
    ("sampler/a.py", "__import__('bench')"),
    ("sampler/a.py", "try:\n    import bench\nexcept ImportError:\n    pass"),
    ("sampler/a.py", "def f():\n    from kernels import native"),
    ("sampler/deep/variants.py", "def f():\n    from kernels import native"),
    (DOOR, "from kernels import native"),
    (DOOR, "class A:\n    import kernels"),
    (DOOR, "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import kernels"),
    (DOOR, "def f(x=__import__('kernels')):\n    pass"),
    (DOOR, "def f():\n    import bench"),
    ("bench/a.py", "from tests.cheaters import replay"),
    ("bench/quality/a.py", "async def f():\n    import results"),
]


@pytest.mark.parametrize(("file", "source"), PLANTED)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, source: str) -> None:
    plant(tmp_path, file, source)
    (found,) = violations(tmp_path)
    assert found.startswith(f"{file}:")


ALLOWED = [
    (DOOR, "def f():\n    from kernels import native"),
    (DOOR, "async def f():\n    if True:\n        import kernels.native"),
    (DOOR, "f = lambda: __import__('kernels')"),
    ("sampler/a.py", "from sampler import noise\nfrom . import kernels\nfrom .bench import x"),
    ("sampler/a.py", "import benchmark, samplers, kernels_community"),
    ("sampler/a.py", "'''from bench import gate'''\n# import bench\nx.bench.kernels"),
    ("bench/a.py", "import kernels.native\nfrom sampler import noise\nfrom bench import gate"),
    ("bench/quality/a.py", "from .. import gate\nfrom . import metric"),
    ("tests/a.py", "import bench, kernels, sampler"),
]


@pytest.mark.parametrize(("file", "source"), ALLOWED)
def test_what_the_rule_allows_is_left_alone(tmp_path: Path, file: str, source: str) -> None:
    plant(tmp_path, file, source)
    assert violations(tmp_path) == []


def test_no_duration_is_taken_from_a_clock_that_jumps() -> None:
    """Whoever sets the date, or a machine that wakes up, moves `time.time`; it is for names and dates alone."""
    found = []
    for package in MAY_IMPORT:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time":
                    found += [path.relative_to(ROOT).as_posix()] * (node.attr in ("time", "time_ns"))
    # compared with the dates of files, and with the times that the allocator stamps on its events
    assert found == ["bench/gpu_plan.py", "bench/meter.py"]


def plant(root: Path, file: str, source: str) -> None:
    (root / file).parent.mkdir(parents=True)
    (root / file).write_text(source)


def test_sampler_lives_without_its_neighbours() -> None:
    """Every module of the sampler imports with `kernels` and `bench` out of reach."""
    run("""
        import importlib, pkgutil, sys
        sys.modules["kernels"] = sys.modules["bench"] = None  # now importing them raises ImportError
        import sampler
        names = [m.name for m in pkgutil.walk_packages(sampler.__path__, "sampler.")]
        assert "sampler.variants" in names
        for name in names:
            if not name.endswith("__main__"):
                importlib.import_module(name)
    """)


def test_kernels_is_ours() -> None:
    import kernels

    assert Path(kernels.__file__).resolve().is_relative_to(ROOT / "kernels")


@pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
@pytest.mark.parametrize("namesake", [False, True])
def test_diffusers_imports_beside_our_kernels(tmp_path: Path, namesake: bool) -> None:
    """Ours is loaded and diffusers works, with and without Hugging Face's package of the same name."""
    if namesake:
        plant(tmp_path, "kernels/__init__.py", "def get_kernel(*args, **kwargs): ...")
        plant(tmp_path, "kernels-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: kernels\nVersion: 1.0\n")
    run(f"""
        import sys
        sys.path.append({str(tmp_path)!r})
        from pathlib import Path
        import diffusers.models.attention_dispatch  # where diffusers would use the namesake
        from diffusers import DDPMScheduler, UNet2DModel
        from diffusers.utils import is_kernels_available
        import kernels
        assert is_kernels_available() == {namesake}
        DDPMScheduler().set_timesteps(10)
        assert Path(kernels.__file__).resolve().parent == Path({str(ROOT / "kernels")!r})
    """)


def run(program: str) -> None:
    """Run a program in a fresh interpreter that stands in the checkout."""
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
