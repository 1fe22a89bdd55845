"""Licenses of everything that an installation brings: which extra asks for a package that is not permissive.

    python distributions/licenses.py               # with the extra all
    python distributions/licenses.py serve mcp     # with these

Packages are those of the environment that runs this script, and their licenses what their metadata say; a package
that is not installed here is named, and not judged. The exit code is 1 where a license is on neither list.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import tomlkit
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]

PERMISSIVE = re.compile(
    r"\b(apache|mit\b|0?bsd|isc\b|psf|python software foundation|hpnd|historical permission|unlicense|zlib|cc0"
    r"|cnri|mozilla|mpl|public domain|blueoak|boost|bsl-1)"
)
"""Words of licenses that ask for no more than a notice, or, as the MPL does, only for their own files."""

KNOWN = {
    "psycopg": "LGPL-3.0: used as it is, from an extra",
    "psycopg-binary": "LGPL-3.0: used as it is, from an extra",
    "py-rust-stemmers": "MIT, by its repository: the metadata say nothing",
}
"""Other licenses that were looked at, with the reason why the package may be asked for."""

NVIDIA = re.compile(r"nvidia-|cuda-")
"""Packages of NVIDIA under its own license, which torch asks for on machines with its GPUs; none of ours does."""


def requirements(extras: list[str]) -> dict[str, str]:
    """Return the packages that an installation with some extras brings, each with the one that asks for it."""
    project = tomlkit.parse((ROOT / "pyproject.toml").read_text("utf-8")).unwrap()["project"]
    own = canonicalize_name(project["name"])
    groups = project["optional-dependencies"]
    chosen = extras or ["all"]
    queue = deque((line, own) for line in [*project["dependencies"], f"{own}[{','.join(chosen)}]"])
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    while queue:
        line, asker = queue.popleft()
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not any(
            requirement.marker.evaluate({"extra": extra}) for extra in ("", *_asked(line))
        ):
            continue
        for extra in ("", *sorted(requirement.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if name == own:
                queue.extend((inner, own) for inner in groups.get(extra, []))
            else:
                found.setdefault(name, asker)
                queue.extend((inner, name) for inner in _inner(name, extra))
    return found


def _asked(line: str) -> list[str]:
    return re.findall(r"extra == ['\"]([^'\"]+)", line)


def _inner(name: str, extra: str) -> list[str]:
    """Return what an installed package requires with one of its extras, or without any for ""."""
    try:
        lines = distribution(name).requires or []
    except PackageNotFoundError:
        return []
    kept = []
    for line in lines:
        asked = _asked(line)
        if extra in asked or (not extra and not asked):
            kept.append(line)
    return kept


def license_of(package: Distribution) -> str:
    """Return the license that the metadata of a package say, in short."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        return expression
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier") or []
        if line.startswith("License ::")
    ]
    text = (metadata.get("License") or "").strip()
    return ", ".join(classifiers) or (text.splitlines()[0] if text else "")


def main(extras: list[str]) -> int:
    """Print packages that are not permissive, and return the exit code."""
    counts = {"permissive": 0, "absent": 0}
    unknown = []
    for name, asker in sorted(requirements(extras).items()):
        try:
            license = license_of(distribution(name))
        except PackageNotFoundError:
            counts["absent"] += 1
            print(f"not installed   {name} (for {asker})")
            continue
        if name in KNOWN:
            print(f"looked at       {name}: {KNOWN[name]} (for {asker})")
        elif NVIDIA.match(name):
            print(f"NVIDIA's        {name} (for {asker})")
        elif PERMISSIVE.search(license.lower()) and not re.search(r"\bA?GPL", license):
            counts["permissive"] += 1
        else:
            unknown.append(name)
            print(f"NOT ON A LIST   {name}: {license or 'the metadata say nothing'} (for {asker})")
    print(
        f"{counts['permissive']} packages are permissive, {len(unknown)} on no list, {counts['absent']} not here"
    )
    return bool(unknown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
