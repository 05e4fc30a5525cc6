"""`python -m bench.report.screenshots PAGE [FOLDER]`: the page on a screen and on a dark phone, as two PNGs.

For the README; needs the extra [browser] and a Chromium.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from bench import png_file
from bench.store import write_atomically
from sampler.errors import UsageError

KNOWN = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# name: width, height, scheme, pixels a point, what is scrolled to the top
SHOTS: dict[str, tuple[int, int, Any, float, str]] = {
    "page-wide.png": (1280, 1380, "light", 1, ""),
    "page-phone-dark.png": (390, 1000, "dark", 1.5, "#walk"),
}
FRAME = 27  # of the walk: its middle


def take(page: Path, folder: Path) -> list[Path]:
    """Write both into the folder; returns their paths."""
    from playwright.sync_api import sync_playwright

    browser = next(filter(None, map(shutil.which, KNOWN)), None)
    if browser is None:
        raise UsageError(f"no Chromium here; looked for {', '.join(KNOWN)}")
    made = []
    with sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for name, (width, height, scheme, scale, top) in SHOTS.items():
            tab = launched.new_page(viewport={"width": width, "height": height}, color_scheme=scheme,
                                    device_scale_factor=scale, reduced_motion="reduce")  # fmt: skip
            tab.goto(page.resolve().as_uri())
            if top and tab.locator("#frame").count():
                tab.locator("#frame").fill(str(FRAME))
                tab.evaluate("id => document.querySelector(id).scrollIntoView()", top)
                tab.evaluate("document.querySelector('nav').style.position = 'static'")
                tab.evaluate("document.activeElement.blur()")
            tab.wait_for_timeout(500)
            write_atomically(folder / name, png_file.small(tab.screenshot()))
            made.append(folder / name)
        launched.close()
    return made


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    shown, *wanted = map(Path, sys.argv[1:])
    print("\n".join(map(str, take(shown, wanted[0] if wanted else shown.parent))))
