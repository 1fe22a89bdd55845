"""Put folders of videos into a Qdrant server, through a client with options of your own.

`dits-adapter ingest` does the same with the options that most people need; copy this where you need others.

    python integrations/qdrant/ingest.py ~/videos --url http://localhost:6333 --segment-seconds 10
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from qdrant_client import QdrantClient

from dits_adapter import DITSError, QdrantStore, VideoEncoder
from dits_adapter.stores.ingest import ingest


def main(argv: Sequence[str] | None = None) -> int:
    """Ingest and report; 0 if every video was read, 3 if not, 1 after an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--url", default="http://localhost:6333")
    parser.add_argument("--collection", default="videos")
    parser.add_argument("--encoder", default="demo-clip", help="a CLIP: folder or hub id")
    parser.add_argument("--segment-seconds", type=float)
    args = parser.parse_args(argv)

    client = QdrantClient(
        url=args.url,
        api_key=os.environ.get("QDRANT_API_KEY"),
        timeout=60,  # seconds; an upload waits until the server has stored it
        check_compatibility=False,  # the store asks the server for the one thing that it needs
    )
    try:
        encoder = VideoEncoder.from_pretrained(args.encoder)
        store = QdrantStore(client, args.collection)
        report = ingest(store, args.folders, encoder, segment_seconds=args.segment_seconds)
    except DITSError as error:
        print(error, file=sys.stderr)
        return 1
    print(report)
    return 3 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
