"""Debian's Chromium, driven by Playwright's Python package, and the pages that it looks at."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench import store
from bench.measurement import Measurement
from bench.report import figures, page, sources
from bench.report.sources import Beside
from tests.bench.report import made_up

MACHINE = "amd-epyc-avx512-2cpu"
KNOWN = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIZES = {"wide": (1280, 900), "narrow": (360, 740)}


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """A browser without a window; where there is none the tests say what they lack."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is missing: pip install '.[browser]'")
    found = next(filter(None, map(shutil.which, KNOWN)), None)
    if found is None:
        pytest.skip("no Chromium here: apt-get install chromium (`.ci/run` does)")
    with playwright.sync_playwright() as driver:
        # a sandbox cannot be made by root in a container; the pages are our own
        launched = driver.chromium.launch(executable_path=found, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def measured() -> Measurement:
    """The newest committed result of a machine."""
    return store.load(store.newest(store.KEPT, MACHINE))


@pytest.fixture(scope="session")
def measured_page(measured: Measurement, tmp_path_factory) -> Path:
    """Its page, with a made-up walk."""
    beside = replace(sources.beside(store.newest(store.KEPT, MACHINE).parent), walk=made_up.walk())
    return _written(tmp_path_factory, measured, beside)


@pytest.fixture(scope="session")
def hostile_page(tmp_path_factory) -> Path:
    """A page whose every string tries to be a script."""
    bad = made_up.HOSTILE
    walk = replace(made_up.walk({"commit": bad}), model=bad, labels=(bad, bad, bad), command=bad, started=bad)
    return _written(tmp_path_factory, made_up.hostile(), Beside(walk=walk))


def _written(tmp_path_factory, measurement, beside: Beside) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page.html(measurement, beside, figures.plots(measurement, beside)), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser) -> Iterator[Callable]:
    """opened(path, size, scheme): the page in a tab; what the browser complained of is in `tab.heard`."""
    contexts = []

    def go(path: Path, size: str = "wide", scheme: str = "light", script: bool = True):
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme,
                                      java_script_enabled=script, reduced_motion="reduce")  # fmt: skip
        contexts.append(context)
        tab = context.new_page()
        tab.heard, tab.asked = [], []
        tab.on("console", lambda message: tab.heard.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: tab.heard.append(str(error)))
        tab.on("request", lambda request: tab.asked.append(request.url))
        tab.goto(path.as_uri())
        return tab

    yield go
    for context in contexts:
        context.close()
