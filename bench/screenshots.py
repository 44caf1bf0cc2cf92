"""Pictures of a report's page for the documentation: `python -m bench.screenshots runs/demo/report.html`.

Needs Chromium and Playwright. Writes docs/images/report-*.png: the scores, the charts and a question, light and dark.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

IMAGES = Path(__file__).parents[1] / "docs" / "images"
WIDTH, HEIGHT = 1280, 860
PICTURES = {"scores": ("scores", "light"), "cost": ("cost", "light"), "question": ("questions", "dark")}
"""Name of the picture → the section at its top, and the theme."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help="a report.html")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder of the pictures (default docs/images)")
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        parser.error("Chromium is not installed: `apt install chromium`.")
    args.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses its sandbox to root
        browser = driver.chromium.launch(executable_path=chromium, args=["--disable-gpu", *sandbox])
        for name, (section, theme) in PICTURES.items():
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=theme)
            page.goto(args.page.resolve().as_uri())
            page.wait_for_function("document.documentElement.dataset.ready")
            if section != "scores":
                page.evaluate("document.getElementById('filters').style.position = 'static'")
                page.evaluate(f"document.getElementById('{section}').scrollIntoView()")
                page.evaluate("scrollBy(0, document.documentElement.clientHeight ? 100 : 0)")
            page.wait_for_timeout(2500)  # charts are drawn when they come into sight
            file = args.out / f"report-{name}.png"
            page.screenshot(path=file)
            print(f"{file}: {file.stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main()
