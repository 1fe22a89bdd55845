"""The documentation site: everything that is public is on it, its commands parse, it loads nothing from elsewhere.

`make site`, which CI runs, builds it and ends at the first warning.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import dits_adapter
from dits_adapter import cli
from dits_adapter.cli._parser import Parser

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


def test_public_names_lead_to_the_reference():
    site = pytest.importorskip("distributions.site", reason="needs the extra docs")
    home = "dits_adapter.search.VideoSearch"
    assert site._linked("`VideoSearch.search` and `None`") == f"[`VideoSearch.search`][{home}] and `None`"


def test_the_reference_has_every_command_with_its_options(reference):
    assert "--min-probability P" in reference["reference/commands/search.md"]
    assert "| 130 |" in reference["reference/commands/index.md"]
    assert [line for line in "".join(reference.values()).splitlines() if line.endswith("` |  |")] == []
    for name in re.findall(r"`dits-adapter ([a-z-]+)`", reference["reference/commands/index.md"]):
        assert f"dits-adapter {name}" in reference[f"reference/commands/{name}.md"]


def test_the_reference_shows_the_examples_of_a_command():
    site = pytest.importorskip("distributions.site", reason="needs the extra docs")
    parser = Parser(prog="dits-adapter find", examples=["a", "b"])
    page = site._command("find", parser)
    assert "\n## Examples\n\n```sh\ndits-adapter find a\ndits-adapter find b\n```\n" in page


def test_the_reference_has_the_settings_with_their_bounds(reference):
    page = reference["reference/settings.md"]
    assert "| `epochs` | whole number, at least 1 | `30` | passes over all (text, video) pairs. |" in page
    assert re.search(r"^\| `gentle-mlp` \| .*`adapter=gentle-mlp`", page, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "text", "refused"),
    [
        ("a.html", '<script defer src="https://cdn.example/x.js"></script>', True),
        ("a.html", '<img alt="" src="//cdn.example/x.png">', True),
        ("a.html", "<style>@import 'https://fonts.example/x.css';</style>", True),
        ("a.css", "body { background: url(http://cdn.example/x.png) }", True),
        ("a.html", '<a href="https://example.org">a</a> <img src="../x.png"> <code>url(https://x)</code>', False),
    ],
)
def test_a_page_that_loads_from_elsewhere_ends_the_build(tmp_path, name, text, refused):
    site = pytest.importorskip("distributions.site", reason="needs the extra docs")
    (tmp_path / name).write_text(text)
    config = SimpleNamespace(site_dir=str(tmp_path))
    if not refused:
        return site.on_post_build(config)
    with pytest.raises(site.PluginError, match=rf"(?m)^{name}: .*example/x"):
        site.on_post_build(config)


def test_the_readme_is_a_screen_and_the_sites_first_page():
    site = pytest.importorskip("distributions.site", reason="needs the extra docs")
    assert site.PAGES["README.md"] == "index.md"
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 100


def test_ci_builds_the_site_strictly():
    assert re.search(r"^make --jobs \d (\w+ )*site\b", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)


def test_a_warning_ends_the_build(tmp_path):
    """Build a small site with a dead link as `make site` would."""
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    (options,) = re.findall(r"\$\(BIN\)/mkdocs (build.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[dead](nowhere.md)")
    (tmp_path / "theme").mkdir()
    (tmp_path / "theme" / "main.html").write_text("{{ page.content }}")
    (tmp_path / "mkdocs.yml").write_text("site_name: x\ntheme: {name: null, custom_dir: theme}\nplugins: []\n")
    command = [sys.executable, "-m", "mkdocs", *shlex.split(options)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "nowhere.md" in done.stderr
    assert re.search(r"Aborted with \d warnings in strict mode", done.stdout)
