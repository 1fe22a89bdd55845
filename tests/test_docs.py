"""The pages in docs/ and CONTRIBUTING.md: their Python runs, block after block, as a reader would type it."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

from distributions.notebook import notebook_markdown
from tests.walk import run_python

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.ipynb"), ROOT / "CONTRIBUTING.md"])


def content(page: Path) -> str:
    return notebook_markdown(page) if page.suffix == ".ipynb" else page.read_text("utf-8")


WITH_CODE = [page for page in PAGES if "```python" in content(page)]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.clips.dataset import write_clip
    from benchmarks.clips.scenes import scenes

    (tmp_path / "my-videos").mkdir()
    for scene in scenes("test")[:2]:
        write_clip(scene, tmp_path / "my-videos" / f"{scene.name}.mp4")
    code = "\n".join(re.findall(r"```python\n(.*?)```", content(page), re.DOTALL))
    monkeypatch.chdir(tmp_path)
    for module in re.findall(r"^(?:import|from) (chromadb|duckdb|faiss|usearch)\b", code, re.MULTILINE):
        pytest.importorskip(module)
    run_python(code, page, monkeypatch)
    printed = capsys.readouterr().out.strip()
    assert printed
    if page.stem == "query-functions":  # of six databases
        found = [line for line in printed.splitlines() if line.startswith("[")]
        assert (len(found), len(set(found))) == (6, 1), found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", content(page)):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_a_page_names_exist(page: Path) -> None:
    for name in re.findall(r"`((?:dits_adapter|tests|benchmarks|integrations)/[\w/.-]+)`", content(page)):
        assert (ROOT / name).exists(), name


def test_dotted_names_resolve() -> None:
    """Every `dits_adapter.x.y` in backticks, in the package, the benchmarks and all pages."""
    folders = ("dits_adapter", "benchmarks", "integrations", "docs", "distributions")
    files = [*ROOT.glob("*.md"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    names = {
        name: path
        for path in files
        if path.suffix in (".py", ".md")
        for name in re.findall(r"`(dits_adapter(?:\.\w+)+)", path.read_text("utf-8"))
    }
    assert len(names) > 5
    for name, path in names.items():
        try:
            pkgutil.resolve_name(name)
        except (AttributeError, ModuleNotFoundError):
            raise AssertionError(f"{path.relative_to(ROOT)} names `{name}`, which does not exist") from None
