"""The documentation site: everything that is public is on it, its commands parse, it builds without a warning."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import dits_adapter
from dits_adapter import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "integrations").rglob("*.md"))]


def commands(page: Path) -> list[str]:
    """Commands of a page's blocks, indented or fenced, as one would type them."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    lines = re.findall(r"^(?:    )?(dits-adapter .*)$", text, re.MULTILINE)
    return [line for line in lines if "…" not in line and "<" not in line]


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    site = pytest.importorskip("distributions.site", reason="needs the extra docs")
    return site._reference()


@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands(page)], ids=lambda page: f"{page.parent.name}-{page.stem}"
)
def test_commands_of_a_page_are_accepted(page, monkeypatch, capsys):
    parsed = []
    monkeypatch.setattr(cli, "_execute", lambda args: parsed.append(args.command) or 0)
    for command in commands(page):
        words = shlex.split(re.sub(r"\s(#|\|).*", "", command))  # comments and pipes are the shell's
        try:
            code = cli.main(words[1:])
        except SystemExit as end:
            code = end.code
        assert code == 0, f"{command}\n{capsys.readouterr().err}"


def test_the_reference_has_every_public_name(reference):
    blocks = re.findall(r"^::: dits_adapter\.[\w.]*\b(\w+)$", "\n".join(reference.values()), re.MULTILINE)
    assert set(dits_adapter.__all__) - {"__version__"} <= set(blocks)
    assert len(blocks) == len(
        {line for line in "\n".join(reference.values()).splitlines() if line.startswith(":::")}
    )


def test_the_reference_has_every_command_with_its_options(reference):
    assert "--min-probability P" in reference["reference/commands/search.md"]
    assert "| 130 |" in reference["reference/commands/index.md"]
    for name in re.findall(r"`dits-adapter ([a-z-]+)`", reference["reference/commands/index.md"]):
        assert f"dits-adapter {name}" in reference[f"reference/commands/{name}.md"]


def test_the_reference_has_the_settings_with_their_bounds(reference):
    page = reference["reference/settings.md"]
    assert "| `epochs` | whole number, at least 1 | `30` | passes over all (text, video) pairs. |" in page
    assert re.search(r"^\| `gentle-mlp` \| .*`adapter=gentle-mlp`", page, re.MULTILINE)


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 50
    loaded = {
        address
        for page in pages
        for address in re.findall(
            r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"([^\"]*)\"", page.read_text("utf-8")
        )
        if re.match(r"(https?:)?//", address)
    }
    assert loaded == set()
    names = {page.name for page in pages}
    assert {f"{page.stem}.html" for page in (ROOT / "docs").glob("*.md")} <= names
