"""Build of the published wheels: `dits-adapter-slim`, the module, and `dits-adapter`, which requires its layers.

The demo's models, most of all bytes, are a third one, `dits-adapter-demo`, which the slim one has as an extra.

    python distributions/build.py --out dist
    python distributions/build.py --repository https://github.com/OWNER/NAME --ref v0.1.0    # what is uploaded

Links and pictures of the README lead into the repository; a package index shows it elsewhere. They are made
absolute where the address is known, from `--repository` or from `Source` under `[project.urls]` of the
repository's pyproject.toml, the one place where an owner writes it; elsewhere they become text. All distributions
get a pyproject.toml of their own, made from the repository's, which is the only place where dependencies are
written down. A checkout is installed from that one as a whole, with no index that knows our own distributions.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import tomlkit

ROOT = Path(__file__).parents[1]
WHOLE, SLIM, DEMO = "dits-adapter", "dits-adapter-slim", "dits-adapter-demo"
MODELS = "dits_adapter/pretrained"
FILES = ("README.md", "CHANGELOG.md", "LICENSE", "constraints.txt")


def slim(project: dict[str, Any]) -> dict[str, Any]:
    """Return the `[project]` table of the distribution that holds the module."""
    extras = project["optional-dependencies"]
    return project | {
        "name": SLIM,
        "dependencies": [line for line in project["dependencies"] if not line.startswith(f"{WHOLE}[")],
        "optional-dependencies": {
            extra: [line.replace(f"{WHOLE}[", f"{SLIM}[") for line in extras[extra]]
            for extra in extras
            if extra not in ("dev", "docs")
        }
        | {"demo": [f"{DEMO}=={project['version']}"]},
    }


def demo(project: dict[str, Any]) -> dict[str, Any]:
    """Return the `[project]` table of the distribution that holds the demo's models."""
    table = project | {
        "name": DEMO,
        "description": "Small models of generated clips, with which dits_adapter is tried.",
        "dependencies": [f"{SLIM}=={project['version']}"],
        "optional-dependencies": {},
    }
    del table["scripts"]
    return table


def whole(project: dict[str, Any]) -> dict[str, Any]:
    """Return the `[project]` table of the distribution that holds nothing and brings the main job."""
    layers = next(line for line in project["dependencies"] if line.startswith(f"{WHOLE}["))
    extras = slim(project)["optional-dependencies"]
    table = project | {
        "dependencies": [f"{layers.replace(WHOLE, SLIM)}=={project['version']}"],
        "optional-dependencies": {extra: [f"{SLIM}[{extra}]=={project['version']}"] for extra in extras},
    }
    del table["scripts"]
    return table


def addresses(repository: str, ref: str) -> dict[str, str]:
    """Return the `[project.urls]` of a repository on GitHub."""
    return {
        "Source": repository,
        "Documentation": f"{repository}/blob/{ref}/README.md",
        "Changelog": f"{repository}/blob/{ref}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


def absolute_links(text: str, repository: str, ref: str) -> str:
    """Return Markdown whose links and pictures lead into a repository on GitHub from anywhere."""

    def target(match: re.Match[str]) -> str:
        place = f"{repository}/{'raw' if match[1] else 'blob'}/{ref}"
        return f"{match[1]}{match[2]}({place}/{match[3]})"

    return re.sub(r"(!?)(\[[^\]]*\])\((?!https?:|#|mailto:)([^)\s]+)\)", target, text)


def without_links(text: str) -> str:
    """Return Markdown whose links to files are text.

    Gone are what says nothing without its target: pictures with their captions, and parentheses of links alone.
    """
    link = r"\[[^\]]*\]\((?!https?:|#|mailto:)[^)\s]+\)"
    text = re.sub(rf"!{link}\n(?:\n\*[^*]+\*\n)?\n*", "", text)
    text = re.sub(rf"[ \n]\({link}(?:, {link})*\)", "", text)
    return re.sub(link, lambda match: match[0][1 : match[0].index("]")], text)


def build(out: Path, repository: str | None = None, ref: str = "main") -> list[Path]:
    """Write an sdist and a wheel of each distribution into a folder.

    Args:
        out: the folder.
        repository: address of the repository on GitHub, for links; None for that of pyproject.toml, if it has one.
        ref: tag or branch that links lead to.

    Returns:
        The six files.
    """
    document = tomlkit.parse((ROOT / "pyproject.toml").read_text("utf-8")).unwrap()
    project, build_system = document["project"], document["build-system"]
    repository = repository or project.get("urls", {}).get("Source")
    if repository is not None:
        project["urls"] = addresses(repository, ref)
    paths: list[Path] = []
    for table, target, folders, left_out in (
        (slim(project), {"packages": ["dits_adapter"]}, ("dits_adapter", "deploy"), "pretrained"),
        (demo(project), {"only-include": [MODELS]}, (MODELS,), "__pycache__"),
        (whole(project), {"bypass-selection": True}, (), ""),
    ):
        with tempfile.TemporaryDirectory() as scratch:
            stage = Path(scratch)
            for file in FILES:
                shutil.copy(ROOT / file, stage)
            readme = stage / "README.md"
            text = readme.read_text("utf-8")
            text = without_links(text) if repository is None else absolute_links(text, repository, ref)
            readme.write_text(text, "utf-8")
            for folder in folders:
                ignore = shutil.ignore_patterns("__pycache__", left_out)
                shutil.copytree(ROOT / folder, stage / folder, ignore=ignore)
            hatch = {"build": {"targets": {"wheel": target}}}
            (stage / "pyproject.toml").write_text(
                tomlkit.dumps({"build-system": build_system, "project": table, "tool": {"hatch": hatch}}), "utf-8"
            )
            subprocess.run(
                [sys.executable, "-m", "hatchling", "build", "-d", str(stage / "built")], cwd=stage, check=True
            )
            out.mkdir(parents=True, exist_ok=True)
            paths += [Path(shutil.copy(path, out)) for path in sorted((stage / "built").iterdir())]
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder (default: %(default)s)")
    parser.add_argument("--repository", metavar="URL", help="address of the repository on GitHub, for links")
    parser.add_argument("--ref", default="main", metavar="TAG", help="that links lead to (default: %(default)s)")
    options = parser.parse_args()
    print(*build(options.out, options.repository, options.ref), sep="\n")
