"""A page as a browser shows it: headless Chromium, for the tests of pages; they are skipped where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


def browse(page: Path, *args: str, dark: bool = False) -> bytes:
    """Open a page and do what `args` say, as --dump-dom; what comes out."""
    assert CHROMIUM is not None
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    fixed = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={page.parent}/user")
    argv = [CHROMIUM, *fixed, scheme, *args, page.as_uri()]
    done = subprocess.run(argv, capture_output=True, timeout=120, env={**os.environ, "HOME": str(page.parent)})
    assert done.returncode == 0, done.stderr
    return done.stdout


def screenshot(page: Path, *, width: int = 1100, height: int = 1400, dark: bool = False) -> Path:
    """A picture of the page, beside it."""
    picture = page.with_suffix(".dark.png" if dark else ".png")
    browse(page, f"--window-size={width},{height}", f"--screenshot={picture}", dark=dark)
    return picture


class Parsed(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += " "

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != [("style", {})]:
            self.text += data

    def count(self, tag: str) -> int:
        """How many elements there are of a kind."""
        return sum(name == tag for name, _ in self.tags)
