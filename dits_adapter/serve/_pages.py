"""HTML pages of the server: shell.html is what all have in common, and a file each what is its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from string import Template

__all__ = ["PAGES", "STATIC", "Page"]

STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True)
class Page:
    """Page of the server, made of the shell and three files of its own.

    Attributes:
        name: name of its files of content, style and script.
        title: its title.
        link: its name in the links that lead from page to page.
    """

    name: str
    title: str
    link: str

    def html(self) -> str:
        """Return the HTML: the shell with what is the page's own."""
        current = ' aria-current="page"'
        links = (
            f'<a href=".{path}"{current if page == self else ""}>{page.link}</a>' for path, page in PAGES.items()
        )
        return Template((STATIC / "shell.html").read_text("utf-8")).substitute(
            title=self.title,
            name=self.name,
            links="\n    ".join(links),
            content=(STATIC / f"{self.name}.html").read_text("utf-8"),
        )


PAGES = {
    "/": Page("page", "Video search", "Search"),
    "/compare": Page("compare", "Blind comparison", "Compare"),
    "/collection": Page("collection", "Collection", "Collection"),
    "/api": Page("api", "Search API", "API"),
}
"""Pages by the paths under which people open them."""
