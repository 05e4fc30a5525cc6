"""The committed tables and figures hold what the committed raw events make; the page is made of them by `report`."""

import io
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from bench import keep, store
from bench.environment import ROOT
from bench.report import contents, sources, table
from bench.tune import outputs, record
from tests.bench.committed import assert_same_csv, assert_same_tables

TUNINGS = [path for folder in sorted(store.KEPT.glob("*/tune")) for path in record.answers(folder)]


@pytest.mark.parametrize("stored", store.newest_of_each(store.KEPT), ids=lambda path: path.parent.name)
def test_what_is_committed_is_rebuilt(stored: Path) -> None:
    folder = stored.parent
    made = contents(store.load(stored), sources.beside(folder))
    assert set(keep.OUTPUTS) <= set(made)
    assert_same_tables((folder / "report.md").read_text(encoding="utf-8"), str(made["report.md"]))
    assert_same_csv((folder / "rows.csv").read_text(encoding="utf-8"), str(made["rows.csv"]))
    assert {f"figures/{path.name}" for path in (folder / "figures").iterdir()} <= set(keep.OUTPUTS)
    for name in keep.OUTPUTS:
        if name.endswith(".png"):
            before, now = Image.open(folder / name), Image.open(io.BytesIO(made[name]))  # type: ignore[arg-type]
            assert before.size[0] == now.size[0]
    assert len(str(made["report.html"]).encode()) < 6 * 2**20


@pytest.mark.parametrize("stored", TUNINGS, ids=lambda path: f"{path.parent.parent.name}/{path.name}")
def test_what_a_search_found_is_told_as_its_events_make_it(stored: Path) -> None:
    made, name = outputs.contents(record.load(stored)), stored.name.removesuffix(".gz").removesuffix(".json")
    assert_same_tables(stored.with_name(f"{name}.md").read_text(encoding="utf-8"), str(made[".md"]))
    assert_same_csv(stored.with_name(f"{name}.csv").read_text(encoding="utf-8"), str(made[".csv"]))


def test_the_readme_shows_the_newest_table() -> None:
    """Made by `bench.report.table.in_short`."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert table.in_short(store.load(store.newest(store.KEPT, "amd-epyc-avx512-2cpu"))) in readme


def test_the_readme_links_to_what_is_there() -> None:
    found = subprocess.run(["git", "-C", str(ROOT), "ls-files", "results"], capture_output=True, text=True, check=False)
    tracked = set(found.stdout.split())
    if not tracked:
        pytest.skip("no git here to say what is committed")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = {part.split(")")[0] for part in readme.split("](")[1:] if part.startswith("results/")}
    assert linked
    missing = {path for path in linked if path not in tracked and not any(t.startswith(f"{path}/") for t in tracked)}
    assert not missing


def test_what_is_committed_stays_small() -> None:
    kept = [p for folder in store.KEPT.iterdir() if folder.is_dir() and folder.name not in ("local", "scratch", "pages")
            for p in folder.rglob("*") if p.is_file()]  # fmt: skip
    assert sum(path.stat().st_size for path in kept) < 5 * 2**20
    assert not [path for path in kept if path.suffix in (".svg", ".html")]
