"""Resolution of the published requirements on every supported Python: the base, each extra, and all of them.

    python distributions/resolve.py                       # 3.10 to 3.13; needs uv and a package index
    python distributions/resolve.py --python 3.12 serve   # one Python, one extra

Nothing is installed: what is checked is that wheels exist whose requirements agree, and that `dev` can be had in
the versions of constraints.txt. `make wheels` installs, and runs `pip check`, on the Python of the checkout.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import tomlkit

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def resolve(extras: list[str], python: str, *options: str) -> str:
    """Resolve with some extras on one Python; return the reason why that fails, or "" where it does not."""
    command = ["uv", "pip", "compile", str(ROOT / "pyproject.toml"), "--python-version", python, "--quiet"]
    command += ["--only-binary", ":all:", "--no-annotate", "--no-header"]
    command += [*options, *(part for extra in extras for part in ("--extra", extra))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip() or "uv says nothing"


def main() -> int:
    """Print a line for each resolution, and return 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help="instead of the base, each of them, and all")
    parser.add_argument("--python", action="append", metavar="3.N", help="instead of all; may be repeated")
    options = parser.parse_args()
    if shutil.which("uv") is None:
        print("uv is not installed: pip install uv", file=sys.stderr)
        return 1
    groups = tomlkit.parse((ROOT / "pyproject.toml").read_text("utf-8")).unwrap()["project"][
        "optional-dependencies"
    ]
    cases = [[extra] for extra in options.extras or ["", *(name for name in groups if name != "dev")]]
    failed = 0
    for python in options.python or PYTHONS:
        for extras in cases:
            reason = resolve([extra for extra in extras if extra], python)
            failed += bool(reason)
            print(f"{python:<5} {', '.join(extras) or 'base':<16} {reason or 'agrees'}", flush=True)
        if not options.extras:
            reason = resolve(["dev"], python, "--constraint", str(ROOT / "constraints.txt"))
            failed += bool(reason)
            print(f"{python:<5} {'constraints.txt':<16} {reason or 'agrees'}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
