"""Results on disk: whole or not at all, read back bit for bit, and never a reason to call the checkout dirty."""

import json
import math
import os
import re
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from bench import break_even, environment, memory_command, peers_command, store, walk
from bench.__main__ import main
from bench.quality import divergence
from bench.tune.asked import Asked
from bench.workload import Workload
from sampler.errors import UsageError
from sampler.model_check import Facts
from tests.bench.synthetic import everything, measurement, pairs, probe

OWN = Facts("mine", (1, 8, 8), 1000, "epsilon", 0, 1, 1, True, ())
COMMANDS = {
    "walk": walk, "peers": peers_command, "memory": memory_command, "divergence": divergence, "break-even": break_even,
}  # fmt: skip


def test_round_trip_is_bit_exact(tmp_path: Path) -> None:
    made = everything()
    made.events += pairs("ddim", {3: [0.1 + 0.2, 1 / 3, 5e-324, 8e307]}, reference_s=1.0)
    path = store.save(made, tmp_path)
    read = store.load(path)
    assert read.json() == made.json()
    assert repr(read.events) == repr(made.events)
    assert read.workload == made.workload
    assert store.save(read, tmp_path / "again").read_bytes() == path.read_bytes()
    assert path == tmp_path / "made-up-cpu" / "2026-01-02T030405Z-0123456789.json"
    assert store.newest(tmp_path) == path


def test_nan_survives(tmp_path: Path) -> None:
    read = store.load(store.save(measurement(["reference", "ddim"], [probe("ddim", math.nan)]), tmp_path))
    assert math.isnan(read.row("ddim").probe_error)
    assert read.row("ddim").status == "red"


def test_only_the_main_job_takes_a_machines_page(tmp_path: Path) -> None:
    def home(preset: str, model: str = "fashion-mnist") -> str:
        asked = SimpleNamespace(preset=preset, model=model)  # of a workload, an own model's file would have to be there
        return str(store.home(cast(Workload, asked), tmp_path).relative_to(tmp_path))

    assert home("quick") == home("full") == "."
    assert home("smoke") == home("smoke", "fashion-mnist-32") == "scratch"
    assert home("quick", "fashion-mnist-32") == "models/fashion-mnist-32"
    assert store.home(Workload()) == store.RESULTS


def test_two_models_of_one_name_in_two_folders_share_nothing(tmp_path: Path, monkeypatch) -> None:
    names = ["a/m.py:make", "b/m.py:make", "m.py:make", "m.py:other", "a.m:make", "m:make", "a", "b/a"]
    for folder in ("a", "b/a", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("a/m.py", "m.py", "elsewhere/m.py"):
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)
    found = {name: store.of_model(name, tmp_path).relative_to(tmp_path).as_posix() for name in names}
    assert len(set(found.values())) == len(names)
    assert all(re.fullmatch(r"models/[\w.-]+-[0-9a-f]{8}", folder) for folder in found.values())
    assert found["a/m.py:make"].startswith("models/m.py-make-")
    assert store.named(f"{tmp_path}/a/m.py:make") == store.named("a/m.py:make") == store.named("./b/../a/m.py:make")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in ("m.py:make", "m:make"):  # the same words mean another file here
        assert store.named(name) != found[name].removeprefix("models/")
    asked = {Asked(replace(Workload(), model=f"{folder}/m.py:make", own=OWN)).name for folder in ("../a", ".")}
    assert len(asked) == 2
    assert len({Asked(Workload(), contenders=f"{folder}/rows.py").name for folder in ("../a", ".")}) == 2


def test_a_file_of_the_users_comes_before_one_that_is_kept(tmp_path: Path, monkeypatch) -> None:
    kept, own = tmp_path / "results", tmp_path / "results" / "local"
    monkeypatch.setattr(store, "KEPT", kept)
    monkeypatch.setattr(store, "RESULTS", own)
    made = everything()
    with pytest.raises(UsageError, match=r"no results in .*local or .*results; run"):
        store.newest()
    raw = store.save(replace(made, started="2026-05-02T03:04:05Z"), kept)
    store.write_text(raw.with_name(f"{raw.name}.gz"), raw.read_text())
    raw.unlink()
    other = replace(made, environment={**made.environment, "machine": "another"})
    store.save(other, kept)
    assert store.newest_of_each() == [kept / "another" / store.name_of(other), raw.with_name(f"{raw.name}.gz")]
    assert store.load(store.newest(machine="made-up-cpu")).events == made.events
    mine = store.save(made, own)  # older, and the user's: never one history
    assert store.newest(machine="made-up-cpu") == mine
    assert store.newest_of_each() == [kept / "another" / store.name_of(other), mine]
    assert store.stored(own / "made-up-cpu" / raw.name) == raw.with_name(f"{raw.name}.gz")
    (own / "made-up-cpu" / raw.name).write_text("{}")
    assert store.stored(own / "made-up-cpu" / raw.name) == own / "made-up-cpu" / raw.name
    assert store.stored(tmp_path / "none.json") == tmp_path / "none.json"


def test_the_page_of_what_is_kept_goes_where_git_ignores_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(store, "KEPT", tmp_path)
    monkeypatch.setattr(store, "RESULTS", tmp_path / "local")
    monkeypatch.setattr(store, "SCRATCH", tmp_path / "scratch")
    monkeypatch.setattr(store, "PAGES", tmp_path / "pages")
    assert store.page_of(tmp_path / "m" / "2.json.gz") == tmp_path / "pages" / "m"
    for own in ("local/m", "scratch/m", "../elsewhere/m"):
        assert store.page_of(tmp_path / own / "2.json") == tmp_path / own


def test_results_of_a_package_without_a_checkout_lie_where_one_stands(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store.kept_in(tmp_path / "site-packages") == tmp_path / "results"
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "pyproject.toml").touch()
    assert store.kept_in(tmp_path / "checkout") == tmp_path / "checkout" / "results"


def test_a_compressed_result_that_is_cut_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = store.save(everything(), tmp_path)
    packed = path.with_name(f"{path.name}.gz")
    store.write_text(packed, path.read_text())
    assert store.load(packed).json() == everything().json()
    assert store.runs(packed.parent) == [path]  # the plain one, of the two
    for damaged in (packed.read_bytes()[:-20], b"{}"):
        packed.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"is not a whole result file .*compressed by gzip"):
            store.load(packed)


@pytest.mark.parametrize("model", ["fashion-mnist", "fashion-mnist-32"])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_lets_another_model_take_a_machines_page(tmp_path, monkeypatch, capsys, name, model) -> None:
    command = [name, *["batched-cfg"] * (name == "break-even"), "--model", model]
    folders: list[Path] = []

    def asked(folder: Path) -> Path:
        folders.append(folder.relative_to(tmp_path))
        raise UsageError("that is enough")

    monkeypatch.setattr(store, "home", partial(store.home, results=tmp_path))
    monkeypatch.setattr(COMMANDS[name], "writable_folder", asked)
    assert main(command) == 3
    assert capsys.readouterr().err == "error: that is enough\n"
    assert (folders[0].parts[:2] == ("models", model)) == (model != "fashion-mnist")
    assert main([*command, "--out", str(tmp_path / "mine")]) == 3
    assert folders[1].parts[0] == "mine"


def test_a_dirty_checkout_is_in_the_name(tmp_path: Path) -> None:
    made = everything()
    made.environment["dirty"] = True
    assert store.save(made, tmp_path).name.endswith("-0123456789-dirty.json")


def test_a_result_of_a_gpu_machine_can_be_read_on_any(tmp_path: Path) -> None:
    stored = everything().json()
    stored["workload"]["device"] = "cuda:7"
    (tmp_path / "a.json").write_text(json.dumps(stored))
    assert store.load(tmp_path / "a.json").workload.device == "cuda:7"


def _other_schema(text: str) -> str:
    return json.dumps({**json.loads(text), "schema": 99})


def _without(key: str):
    return lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != key})


DAMAGE = {
    "truncated": lambda text: text[: len(text) // 2],
    "cut by one": lambda text: text[:-1],
    "empty": lambda text: "",
    "not JSON": lambda text: "row,status\n",
    "bytes": lambda text: b"\xff\xfe\x00\x80",
    "a list": lambda text: "[1, 2]",
    "a number": lambda text: "1",
    "a string": lambda text: '"schema"',
    "null": lambda text: "null",
    "another kind": lambda text: '{"benchmarks": []}',
    "other schema": _other_schema,
    "no events": _without("events"),
    "no schema": _without("schema"),
    "unknown field": lambda text: text.replace('"batch":4', '"bitch":4'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_result_is_refused_in_one_sentence(tmp_path: Path, damage: str) -> None:
    path = store.save(everything(), tmp_path)
    damaged = DAMAGE[damage](path.read_text())
    path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    with pytest.raises(UsageError) as error:
        store.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    if damage == "other schema":
        assert "schema 99" in str(error.value)


def test_a_missing_file_a_folder_and_an_empty_results_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UsageError, match="cannot read"):
            store.load(path)
    with pytest.raises(UsageError, match="no results in"):
        store.newest(tmp_path)


@pytest.mark.parametrize("content", ["new", b"new"])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch, content) -> None:
    path = tmp_path / "deep" / "a.txt"
    store.write_atomically(path, "old")

    def broken(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="No space"):
        store.write_atomically(path, content)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]  # and nothing half-written beside it
    monkeypatch.undo()
    store.write_atomically(path, content)
    assert path.read_text() == "new"


def test_half_a_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    store.write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):  # fails in the midst of writing
        store.write_atomically(path, "x" * 100_000 + "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def git_in(folder: Path):
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(folder), *arguments],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip

    return git


@pytest.mark.parametrize(("told", "found"), [
    ("", ("unknown", True)), ("0123456789abcdef", ("0123456789", False)), ("0123456-dirty", ("0123456", True)),
])  # fmt: skip
def test_where_git_does_not_tell_the_commit_is_told_or_unknown_and_dirty(told, found, tmp_path, monkeypatch) -> None:
    """Nor is it that of a repository that happens to stand around the copy."""
    copy = tmp_path / "outer" / "copy"
    copy.mkdir(parents=True)
    monkeypatch.setattr(environment, "ROOT", copy)
    monkeypatch.setenv(environment.COMMIT, told)
    assert environment.commit() == found
    git = git_in(tmp_path / "outer")
    git("init", "-q")
    (tmp_path / "outer" / "other.py").write_text("1")
    git("add", "other.py")
    git("commit", "-qm", "somebody else's")
    assert environment.commit() == found


def test_what_is_told_must_be_a_commit(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setenv(environment.COMMIT, "main")
    with pytest.raises(UsageError, match="DDPM_BENCH_COMMIT=main is no commit"):
        environment.commit()


def test_a_checkout_whose_state_git_does_not_tell_is_dirty(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    answers = {"--show-toplevel": str(tmp_path), "HEAD": "0123456789", ":!results": None}
    monkeypatch.setattr(environment, "_output", lambda *command: answers[command[-1]])
    assert environment.commit() == ("0123456789", True)
    answers[":!results"] = ""
    assert environment.commit() == ("0123456789", False)


def test_results_do_not_make_the_checkout_dirty(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.delenv(environment.COMMIT, raising=False)
    assert environment.commit() == ("unknown", True)
    git = git_in(tmp_path)
    git("init", "-q")
    (tmp_path / "code.py").write_text("1")
    git("add", ".")
    git("commit", "-qm", "first")
    head = git("rev-parse", "--short=10", "HEAD")
    assert environment.commit() == (head, False)
    path = store.save(everything(), tmp_path / "results")
    assert environment.commit() == (head, False)
    git("add", "-f", str(path))
    git("commit", "-qm", "a result")
    path.write_text("changed")
    assert environment.commit()[1] is False
    (tmp_path / "code.py").write_text("2")
    assert environment.commit()[1] is True
    git("checkout", "-q", "code.py")
    (tmp_path / "new.py").write_text("")
    assert environment.commit()[1] is True
