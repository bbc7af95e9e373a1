"""toolroll(7): how all commands behave, from the text beside this module."""

from __future__ import annotations

from pathlib import Path

from toolroll.docs.roff import Page

_TEXT = Path(__file__).with_name("toolroll.7.txt")


def shared_page() -> str:
    """The page."""
    page = Page("toolroll", 7, "what all commands of toolroll have in common")
    page.prose(_TEXT.read_text(encoding="utf-8"))
    return page.render()
