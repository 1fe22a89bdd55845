"""Search a collection with plain CLIP and with DITS, side by side: one made here, or the one you have.

    python integrations/qdrant/search.py "a red ball" --url http://localhost:6333
    python integrations/qdrant/search.py "a red ball" --collection my_clips --vector clip --trust-foreign

The second line is for an index that was made without this package. Nothing in it is changed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from itertools import zip_longest

from qdrant_client import QdrantClient

from dits_adapter import DITSError, DITSQueryEncoder, PointLayout, QdrantStore


def main(argv: Sequence[str] | None = None) -> int:
    """Print both rankings; 0 if all went well, 1 after an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("query")
    parser.add_argument("--url", default="http://localhost:6333")
    parser.add_argument("--collection", default="videos")
    parser.add_argument("--adapter", default="demo-dits", help="folder or hub id")
    parser.add_argument("--limit", type=int, default=5)
    parser.add_argument("--vector", default="video", help='name of the vector; "" is the unnamed one')
    parser.add_argument("--trust-foreign", action="store_true", help="its vectors are known to be of this CLIP")
    args = parser.parse_args(argv)

    client = QdrantClient(url=args.url, api_key=os.environ.get("QDRANT_API_KEY"), check_compatibility=False)
    try:
        encoder = DITSQueryEncoder.from_pretrained(args.adapter)
        store = QdrantStore(
            client,
            args.collection,
            space=encoder.space,
            layout=PointLayout(vector=args.vector),
            trust_foreign=args.trust_foreign,
        )
        plain = store.search(encoder.encode_document(args.query), limit=args.limit)
        adapted = store.search(encoder.encode_query(args.query), limit=args.limit)
    except DITSError as error:
        print(error, file=sys.stderr)
        return 1
    for rank, (left, right) in enumerate(zip_longest(plain, adapted, fillvalue=""), start=1):
        print(f"{rank}. plain CLIP  {left}\n   DITS        {right}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
