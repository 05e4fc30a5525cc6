"""report.html in a real browser: it asks for nothing, complains of nothing, and does what it shows."""

import itertools
from pathlib import Path

import pytest

from bench.measurement import Measurement
from bench.report import pictures

pytestmark = pytest.mark.extra

CANVASES = "[...document.querySelectorAll('canvas')].map(c => c.toDataURL())"
LINES = "[...document.querySelectorAll('polyline[data-line]')].map(l => l.getAttribute('points'))"


def able(measured: Measurement) -> list[str]:
    """The rows with figures."""
    return [name for name in measured.rows if measured.row(name).status == "ok"]


def open_all(tab) -> None:
    tab.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")


def until(tab, condition: str) -> None:
    """Wait until an expression of the page is true; Playwright's own waiting is refused by the page's policy."""
    for _ in range(600):
        if tab.evaluate(condition):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(f"never came true: {condition}")


def stop_time(tab) -> None:
    """From here on time passes only where it is told to."""
    tab.clock.install(time=0)
    tab.clock.pause_at(3_600_000)


def column(tab, heading: str) -> list[str]:
    """The texts of a column, of the rows that are shown and have it, from above."""
    return tab.evaluate("""heading => {
        const head = [...document.querySelectorAll('#rows th')];
        const at = head.findIndex(th => th.textContent.startsWith(heading));
        return [...document.querySelectorAll('#rows tbody tr:not([hidden])')]
            .filter(tr => tr.cells.length === head.length).map(tr => tr.cells[at].textContent.trim());
    }""", heading)  # fmt: skip


@pytest.mark.parametrize(("size", "scheme"), [("wide", "light"), ("narrow", "dark")])
def test_it_asks_for_nothing_and_complains_of_nothing(opened, measured_page: Path, size: str, scheme: str) -> None:
    tab = opened(measured_page, size, scheme)
    open_all(tab)
    tab.click("#play")
    tab.wait_for_timeout(400)
    assert tab.heard == []
    assert [url for url in tab.asked if not url.startswith("data:")] == [measured_page.as_uri()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(opened, measured_page: Path, scheme: str) -> None:
    tab = opened(measured_page, "narrow", scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    open_all(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    assert tab.locator("figure .narrow svg").first.is_visible()
    assert not tab.locator("figure .wide svg").first.is_visible()


def test_the_slider_changes_every_picture_and_signal(opened, measured_page: Path) -> None:
    tab = opened(measured_page)
    until(tab, "document.querySelector('canvas').getContext('2d').getImageData(0, 0, 28, 28).data.some(v => v)")
    seen = [(tab.evaluate(CANVASES), tab.evaluate(LINES), tab.inner_text("#now"))]
    for frame in (1, 5):
        tab.locator("#frame").fill(str(frame))
        seen.append((tab.evaluate(CANVASES), tab.evaluate(LINES), tab.inner_text("#now")))
    for before, after in itertools.pairwise(seen):
        assert len(before[0]) == 6
        assert len(before[1]) == 6
        for was, now in zip((*before[0], *before[1]), (*after[0], *after[1]), strict=True):
            assert was != now
    assert [said.split(" · ")[0] for _, _, said in seen] == ["t = 900", "t = 700", "done"]


def test_play_pause_step_and_reset(opened, measured_page: Path) -> None:
    tab = opened(measured_page)

    def frame() -> int:
        return int(tab.input_value("#frame"))

    tab.click("#step")
    tab.click("#step")
    assert frame() == 2
    tab.click("#back")
    assert frame() == 1
    stop_time(tab)
    tab.click("#play")
    assert tab.inner_text("#play") == "Pause"
    tab.clock.run_for(300)
    assert frame() == 3
    tab.click("#play")
    tab.clock.run_for(1000)
    assert frame() == 3
    tab.click("#play")
    tab.clock.run_for(1000)
    assert tab.inner_text("#play") == "Play"  # it stops at the end by itself
    assert frame() == 5
    tab.click("#reset")
    assert frame() == 0


def test_the_walk_by_keyboard(opened, measured_page: Path) -> None:
    tab = opened(measured_page)
    tab.focus("#frame")
    for key, frame in (
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowLeft", 1),
        ("End", 5),
        ("Home", 0),
        ("PageDown", 5),
    ):
        tab.keyboard.press(key)
        assert tab.input_value("#frame") == str(frame), key
    tab.keyboard.press("Home")
    stop_time(tab)
    tab.keyboard.press("Space")
    tab.clock.run_for(300)
    assert tab.input_value("#frame") == "2"
    tab.keyboard.press("Space")
    assert tab.inner_text("#play") == "Play"


def test_headings_sort(opened, measured: Measurement, measured_page: Path) -> None:
    tab = opened(measured_page)
    tab.get_by_role("button", name="step", exact=True).click()
    falling = [float(text) for text in column(tab, "step")]
    assert falling == sorted(falling, reverse=True)
    assert len(falling) == len(able(measured)) > 10
    tab.get_by_role("button", name="step", exact=True).click()
    rising = [float(text) for text in column(tab, "step")]
    assert rising == falling[::-1] or rising == sorted(falling)
    assert tab.locator("#rows th[aria-sort=ascending]").count() == 1
    tab.get_by_role("button", name="row", exact=True).press("Enter")
    names = tab.locator("#rows tbody .name").all_inner_texts()
    assert names[:2] == ["all-equal-steps", "all-equal-steps-cuda"]
    tab.get_by_role("button", name="pays from").click()
    assert column(tab, "pays from")[-1] in ("–", "no gain shown")  # what has no figure stays last


def test_the_table_is_filtered(opened, measured: Measurement, measured_page: Path) -> None:
    tab = opened(measured_page)
    tab.fill("#filter", "bfloat16")
    shown = tab.locator("#rows tbody tr:visible .name").all_inner_texts()
    assert shown == [name for name in able(measured) if "bfloat16" in measured.row(name).changes]
    assert "autocast-bf16" in shown
    assert tab.inner_text("#shown") == f"{len(shown)} of {len(measured.rows)} rows"
    tab.fill("#filter", "")
    tab.uncheck("[data-shows=lossy]")
    assert "ddim" not in tab.locator("#rows tbody tr:visible .name").all_inner_texts()
    tab.check("[data-shows=absent]")
    assert "cuda-graph" in tab.locator("#rows tbody tr:visible .name").all_inner_texts()


def test_a_command_is_copied(opened, measured_page: Path) -> None:
    tab = opened(measured_page)
    tab.click("[aria-label='copy the command of ddim']")
    until(tab, "document.getElementById('copied').textContent")
    assert tab.inner_text("#copied") == "copied: python -m bench run --rows ddim"
    tab.focus("#filter")
    tab.keyboard.press("Control+V")
    assert tab.input_value("#filter") == "python -m bench run --rows ddim"


def test_dark_and_light(opened, measured_page: Path) -> None:
    tab = opened(measured_page, scheme="dark")

    def colours() -> tuple[str, str]:
        return (tab.evaluate("getComputedStyle(document.body).backgroundColor"),
                tab.evaluate("getComputedStyle(document.querySelector('#ladder .wide text')).fill"))  # fmt: skip

    dark = colours()
    assert dark[0] == "rgb(22, 24, 28)"
    tab.click("#theme")
    light = colours()
    assert light[0] == "rgb(255, 255, 255)"
    assert light[1] != dark[1]  # the figures follow
    tab.click("#theme")
    assert colours() == dark
    tab.emulate_media(media="print")
    assert colours()[0] == "rgb(255, 255, 255)"
    assert not tab.locator("nav").is_visible()


def test_differences_are_shown_alone_beside_and_not_at_all(opened, measured: Measurement, measured_page: Path) -> None:
    tab = opened(measured_page)
    counts = []
    for choice in ("both", "pictures", "difference from the reference"):
        tab.locator("#pictures label", has_text=choice).first.click()
        counts.append([tab.locator(f".strips img.{kind}:visible").count() for kind in ("picture", "difference")])
    n = len(pictures.drawn(measured))
    assert counts == [[n, n - 1], [n, 0], [0, n - 1]]  # the reference differs from nothing


def test_it_can_be_read_without_javascript(opened, measured: Measurement, measured_page: Path) -> None:
    tab = opened(measured_page, script=False)
    assert tab.locator("#rows tbody tr:visible").count() == len(measured.rows)
    assert tab.locator(".strips img:visible").count() == 2 * len(pictures.drawn(measured)) - 1
    assert tab.locator("noscript p").is_visible()
    assert not tab.locator("#table-tools").is_visible()


@pytest.mark.parametrize(("size", "scheme"), [("wide", "light"), ("narrow", "dark")])
def test_axe_finds_no_serious_fault(opened, measured_page: Path, size: str, scheme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is missing: pip install '.[browser]'"
    )
    tab = opened(measured_page, size, scheme)
    open_all(tab)
    tab.check("[data-shows=absent]")
    found = axe.Axe().run(tab, options={"resultTypes": ["violations"]}).response["violations"]
    serious = [f"{v['id']}: {v['help']}: {v['nodes'][0]['html'][:200]} {v['nodes'][0]['failureSummary']}"
               for v in found if v["impact"] in ("serious", "critical")]  # fmt: skip
    assert serious == []


def test_a_hostile_name_is_text(opened, hostile_page: Path) -> None:
    tab = opened(hostile_page)
    tab.click("#step")
    assert tab.heard == []
    assert tab.title() != "run"
    assert tab.locator("img[src=x]").count() == 0
    assert tab.locator("#rows .name", has_text="<script>").count() == 1
    assert [url for url in tab.asked if not url.startswith("data:")] == [hostile_page.as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth") == 1280
