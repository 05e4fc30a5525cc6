"""`python -m bench keep`: what is committed of a run, and that nothing else can come there."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench import keep, store
from bench.__main__ import main
from bench.measurement import Measurement
from sampler.errors import UsageError
from tests.bench.synthetic import everything


@pytest.fixture
def places(tmp_path: Path, monkeypatch) -> tuple[Path, Path]:
    """A user's results and those of the checkout, both empty."""
    kept, own = tmp_path / "results", tmp_path / "results" / "local"
    monkeypatch.setattr(store, "KEPT", kept)
    monkeypatch.setattr(store, "RESULTS", own)
    return own, kept


def of_preset(preset: str, model: str = "fashion-mnist") -> Measurement:
    made = everything()
    return replace(made, workload=replace(made.workload, preset=preset, model=model))


def test_a_run_is_kept_in_at_most_eight_files_with_every_value(places) -> None:
    own, kept = places
    run = store.save(everything(), own)
    written = keep.keep(run, own, kept)
    folder = kept / "made-up-cpu"
    assert written[0] == folder / f"{run.name}.gz"
    assert {p.relative_to(folder).as_posix() for p in written[1:]} == set(keep.OUTPUTS)
    assert set(written) == {p for p in folder.rglob("*") if p.is_file()}
    assert len(written) <= 8
    assert json.loads(gzip.decompress(written[0].read_bytes())) == json.loads(run.read_text())
    before = {path: path.read_bytes() for path in written}
    assert keep.keep(written[0], own, kept) == written  # what is kept is made anew from itself
    assert before == {path: path.read_bytes() for path in written}


def test_another_models_run_is_kept_apart(places) -> None:
    own, kept = places
    run = store.save(of_preset("quick", "fashion-mnist-32"), own / "models" / "fashion-mnist-32")
    assert keep.keep(run, own, kept)[0].parent == kept / "models" / "fashion-mnist-32" / "made-up-cpu"


def test_a_run_from_elsewhere_is_kept_by_its_own_word(places, tmp_path) -> None:
    own, kept = places
    run = store.save(everything(), tmp_path / "sent")
    assert keep.keep(run, own, kept)[0].parent == kept / "made-up-cpu"


def test_what_another_command_left_is_kept_with_its_raw_events_compressed(places) -> None:
    own, kept = places
    raw = store.save(everything(), own, "memory")
    left = {"memory/memory.md": "text", "gate-calibration.jsonl": "{}\n{}\n", "gate-certificate.json": "{}",
            "memory/.x.partial": "", "memory/page.html": ""}  # fmt: skip
    for name, text in left.items():
        (own / "made-up-cpu" / name).write_text(text)
    written = [path for name in ("memory", "gate-calibration.jsonl", "gate-certificate.json")
               for path in keep.keep(own / "made-up-cpu" / name, own, kept)]  # fmt: skip
    assert [p.relative_to(kept / "made-up-cpu").as_posix() for p in written] == [
        f"memory/{raw.name}.gz", "memory/memory.md", "gate-calibration.jsonl.gz", "gate-certificate.json",
    ]  # fmt: skip
    assert store.load(written[0]).json() == everything().json()
    assert store.read_text(written[2]) == "{}\n{}\n"


def test_what_is_not_kept_says_why(places, tmp_path) -> None:
    own, kept = places
    trial = store.save(of_preset("smoke"), own / "scratch")
    sent = store.save(of_preset("smoke"), tmp_path / "sent")
    run = store.save(everything(), own)
    (tmp_path / "notes.txt").touch()
    for path, why in ((trial, "of a trial"), (sent, "of a trial"), (run.parent, "name the one to keep"),
                      (tmp_path / "notes.txt", "does not lie below"), (own / "none", "there is no")):  # fmt: skip
        with pytest.raises(UsageError, match=why):
            keep.keep(path, own, kept)
    assert {path.name for path in kept.iterdir()} == {"local"}


def test_the_command_keeps_this_machines_newest_run(places, monkeypatch, capsys) -> None:
    own, kept = places
    monkeypatch.setattr(keep.environment, "machine", lambda device: "made-up-cpu")
    assert main(["keep"]) == 3
    assert "no results in" in capsys.readouterr().err
    run = store.save(everything(), own)
    assert main(["keep"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(kept / "made-up-cpu" / f"{run.name}.gz")
    monkeypatch.setattr(store, "RESULTS", kept)
    assert main(["keep"]) == 3
    assert "no checkout" in capsys.readouterr().err


def test_what_an_older_version_stored_is_kept_as_it_said_it(places) -> None:
    own, kept = places
    run = store.save(everything(), own)
    stored = json.loads(run.read_text())
    stored["workload"] |= {"max_processes": 6}
    del stored["workload"]["same_noise"]
    run.write_text(json.dumps(stored))
    assert store.read(keep.keep(run, own, kept)[0]) == stored
