"""The committed pages, tables and figures are what the stored JSON makes: `make report` changes nothing."""

import base64
import hashlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import store
from bench.environment import ROOT
from bench.report import contents, sources, table
from bench.tune import outputs, record

TUNINGS = [path for folder in sorted(store.RESULTS.glob("*/tune")) for path in record.answers(folder)]
PNG = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")
CLOSE = 2.0  # grey levels of 255, the mean over a figure: another platform may smooth an edge otherwise


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(np.int16)


def by_pixels(text: str) -> str:
    """A text whose pictures stand there by their pixels: compressors differ, pictures must not."""
    return PNG.sub(lambda m: hashlib.sha256(pixels(base64.b64decode(m[1])).tobytes()).hexdigest(), text)


@pytest.mark.parametrize("stored", store.newest_of_each(), ids=lambda path: path.parent.name)
def test_what_is_committed_is_rebuilt(stored: Path) -> None:
    folder = stored.parent
    made = contents(store.load(stored), sources.beside(folder))
    kept = {p.relative_to(folder).as_posix() for p in (folder / "figures").iterdir()}
    assert kept == {name for name in made if name.startswith("figures/")}
    for name, content in made.items():
        before = (folder / name).read_bytes()
        raw = content.encode() if isinstance(content, str) else content
        if before == raw:
            continue
        if name.endswith(".png"):
            one, other = pixels(before), pixels(raw)
            assert one.shape == other.shape, name
            assert np.abs(one - other).mean() < CLOSE, name
        else:
            assert by_pixels(before.decode()) == by_pixels(raw.decode()), name
    assert (folder / "report.html").stat().st_size < 6 * 2**20


@pytest.mark.parametrize("stored", TUNINGS, ids=lambda path: f"{path.parent.parent.name}/{path.stem}")
def test_what_a_search_found_is_told_as_its_events_make_it(stored: Path) -> None:
    for ending, content in outputs.contents(record.load(stored)).items():
        if isinstance(content, str):
            assert stored.with_suffix(ending).read_text(encoding="utf-8") == content, ending


def test_the_readme_shows_the_newest_table() -> None:
    """Made by `bench.report.table.in_short`."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert table.in_short(store.load(store.newest(machine="amd-epyc-avx512-2cpu"))) in readme
