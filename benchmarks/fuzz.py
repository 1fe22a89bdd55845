"""Fuzzing of the decoding of video: damaged clips must be decoded or refused by name, at a bounded cost.

    python -m benchmarks.fuzz --mutants 300

Each mutant is a small generated clip with some bytes changed, cut out, doubled or set to an extreme, and is
decoded in a child process: segments of a second with four frames each. `decoded` and `named` are right; `hung`,
`crashed`, `over budget` (of memory) and `unnamed` (no `VideoError`, or the name of a class for a reason) are not:
such mutants are kept.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from dits_adapter.cli import guarded
from dits_adapter.errors import VideoError
from dits_adapter.video._child import call_in_child
from dits_adapter.video.decode import Video
from dits_adapter.video.limits import DecodeLimits
from tests.video.conftest import CLIPS

__all__ = ["Outcomes", "fuzz", "main", "mutate"]

Outcomes = Counter[str]
"""How many mutants ended in which way."""

GOOD = frozenset({"decoded", "named"})
"""Ways in which a mutant may end."""

SEEDS = (
    *("closed.mp4", "open.mkv", "stream.ts", "program.mpg", "mpeg4.avi", "vp9.webm", "windows.wmv", "untimed.avi"),
    *("uneven.mp4", "sound.mp4"),
)
"""Clips of the test suite that are mutated, one of each container at least."""

SECONDS = 20.0
"""Time after which a mutant counts as hung."""

BUDGET = 1 << 30
"""Bytes of resident memory that a child may reach."""


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file in one of five ways, a few times."""
    damaged = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        # Headers are a small part of a file and the most of what goes wrong.
        end = len(damaged) if rng.random() < 0.5 else min(len(damaged), 1024)
        place, length = int(rng.integers(end)), int(rng.integers(1, 64))
        if rng.random() < 0.3:
            place = max(0, len(damaged) - 1 - place)
        kind = rng.integers(5)
        if kind == 0:
            damaged[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            damaged[place : place + length] = rng.bytes(length)
        elif kind == 2:
            damaged[place : place + 4] = (b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\1")[
                rng.integers(4)
            ]
        elif kind == 3:
            del damaged[place : place + length]
        else:
            damaged[place:place] = damaged[place : place + length]
        if not damaged:
            break
    return bytes(damaged)


def decode_all(path: str) -> str:
    """Decode segments of a file; return how that ended."""
    with suppress(OSError):  # the peak starts again; where there is no /proc, memory is not watched
        Path("/proc/self/clear_refs").write_text("5")
    try:
        with Video(path, limits=DecodeLimits(seconds=SECONDS / 2)) as video:
            for number, (start, end) in enumerate(video.spans(1.0)):
                video.frames(4, start, end)
                if number == 20:
                    break
        outcome = "decoded"
    except VideoError as error:
        outcome = "unnamed" if re.search(r"[A-Za-z]Error\b", error.reason) else "named"  # a class says nothing
    with suppress(OSError):
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if peak and int(peak[1]) * 1024 > BUDGET:
            return "over budget"
    return outcome


def fuzz(mutants: int, seed: int, clips: Path, keep: Path, decode: Callable[[str], str] = decode_all) -> Outcomes:
    """Decode mutants of the clips in a folder, each in a child process; keep those that end badly.

    Args:
        mutants: how many.
        seed: of the damage: mutant k of a seed is always the same.
        clips: folder of the clips named in `SEEDS`; missing ones are left out.
        keep: folder for mutants that end badly.
        decode: function of a module, called with the path of a mutant.
    """
    sources = [clips / name for name in SEEDS if (clips / name).exists()]
    outcomes: Outcomes = Counter()
    keep.mkdir(parents=True, exist_ok=True)
    for number in range(mutants):
        source = sources[number % len(sources)]
        path = keep / f"{seed}-{number}{source.suffix}"
        path.write_bytes(mutate(source.read_bytes(), np.random.default_rng((seed, number))))
        try:
            outcome = call_in_child(SECONDS, decode, str(path), memory=BUDGET)
        except RuntimeError as error:
            words = str(error)
            outcome = next((name for sign, name in _SIGNS.items() if sign in words), "unnamed")
            print(f"{path}: {words}", flush=True)
        outcomes[outcome] += 1
        if outcome in GOOD:
            path.unlink()
    return outcomes


_SIGNS = {
    "of memory": "over budget",
    "takes more than": "hung",
    "crashes": "crashed",
    "ends its process": "crashed",
}


@guarded("benchmarks.fuzz")
def main(arguments: list[str] | None = None) -> int:
    """Fuzz, print the figures; return 1 if a mutant ended badly."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--mutants", type=int, default=300, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz"), help="folder for mutants that end badly (default: %(default)s)"
    )
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for name in SEEDS:
            CLIPS[name](Path(folder, name))
        outcomes = fuzz(args.mutants, args.seed, Path(folder), args.keep)
    for name in ("decoded", "named", "hung", "crashed", "over budget", "unnamed"):
        print(f"{name:12} {outcomes[name]}")
    return 0 if outcomes.keys() <= GOOD else 1


if __name__ == "__main__":
    from benchmarks import fuzz as module  # under a name that child processes know

    raise SystemExit(module.main())
