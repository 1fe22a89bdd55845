"""Notebooks as pages in Markdown, for the site and the tests."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["notebook_markdown"]


def notebook_markdown(path: Path) -> str:
    """Return the cells of a notebook as Markdown, its code in blocks of Python."""
    blocks = []
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        text = "".join(cell["source"])
        blocks.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
    return "\n\n".join(blocks) + "\n"
