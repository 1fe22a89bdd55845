"""The `dits-adapter` command: one small function per subcommand, each thin over the library."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dits_adapter.errors import DITSError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dits-adapter", description="Text finds video across CLIP's modality gap."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")  # noqa: F841
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; return its exit code (0 fine, 1 a DITSError, 2 wrong usage, 130 interrupted)."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except DITSError as error:
        print(f"dits-adapter: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dits-adapter: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
