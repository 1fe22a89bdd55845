"""Embed many videos on many machines, with Ray Data, and store them as `dits-adapter ingest` does on one.

    python integrations/ray/ingest.py /mnt/videos --store http://qdrant:6333 --workers 8 --gpus-per-worker 1

The options are those of `dits-adapter ingest`. Workers read, decode and embed (`EmbedVideos`). This one process
decides which files to embed and writes everything, so that a worker may die at any moment.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from dits_adapter import DITSError, EmbeddingSpace, EmbedVideos, VideoEncoder, open_store
from dits_adapter.cli import add_ingest_options, decode_limits, ingest_options
from dits_adapter.data.segment_table import EmbeddedFile, segment_batch, segments_of
from dits_adapter.errors import MissingExtraError, VideoError
from dits_adapter.stores._discover import identify
from dits_adapter.stores.ingest import ingesting
from dits_adapter.stores.report import IngestReport
from dits_adapter.stores.rows import VideoFile
from dits_adapter.stores.session import IngestSession

try:
    import pyarrow as pa
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.exceptions import RayError
except ModuleNotFoundError as error:
    raise MissingExtraError("ray[data]", "ray", "ingestion on many machines") from error

TASK = 8
"""Files that a worker embeds at a time: enough to decode one while another is embedded."""
MOST_BLOCKS = 4096
"""Parts that the files are divided into, each of `TASK` or more: what Ray keeps account of."""
DEATHS = 2
"""Workers that a file may kill, when it is alone, before it is given up."""


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Ledger:
    """Record that all workers share: the videos that are stored, and the files that were begun and not ended.

    One of the latter may have killed its worker.

    Args:
        stored: ids of the videos that the collection holds.
    """

    def __init__(self, stored: Collection[str]) -> None:
        self.videos = frozenset(stored)
        self.times: Counter[tuple[str, ...]] = Counter()

    def stored(self, ids: Sequence[str]) -> set[str]:
        """Return those of some videos that are stored."""
        return self.videos.intersection(ids)

    def begin(self, *what: str) -> int:
        """Return how often this was begun, this time included."""
        self.times[what] += 1
        return self.times[what]

    def end(self, *what: str) -> None:
        """Delete the record."""
        del self.times[what]


class Worker:
    """Embedder of files on the machine where it runs; it holds one model from its first file to its last.

    Args:
        embed: embeds files.
        space: the embedding space that its vectors have to be of.
        ledger: the `Ledger` of all workers.
    """

    def __init__(self, embed: EmbedVideos, space: EmbeddingSpace, ledger: Any) -> None:
        space.require(embed.encoder.space, mine="the driver", theirs=f"the worker on {socket.gethostname()}")
        self.embed = embed
        self.ledger = ledger

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Turn a column of paths into the rows of their segments."""
        paths = batch["path"].to_pylist()
        if ray.get(self.ledger.begin.remote("together", *paths)) == 1:
            yield from self.tables(paths)
        else:
            for path in paths:
                yield from self.alone(path)
        ray.get(self.ledger.end.remote("together", *paths))

    def alone(self, path: str) -> Iterator[pa.Table]:
        """Embed a file that may be one that kills its process: a decoder's crash, or no memory left."""
        if ray.get(self.ledger.begin.remote("alone", path)) > DEATHS:
            try:
                row = EmbeddedFile(identify(path), error="the process that reads it dies, each time")
            except VideoError as error:  # it is gone meanwhile
                row = EmbeddedFile(VideoFile(error.path, 0, 0), error=error.reason)
            yield pa.Table.from_batches([segment_batch([row], self.embed.schema)])
            return
        yield from self.tables([path])
        ray.get(self.ledger.end.remote("alone", path))

    def tables(self, paths: Sequence[str]) -> Iterator[pa.Table]:
        """Read, decode and embed files whose content is not stored."""
        for rows in self.embed.batches(paths, unwanted=lambda ids: ray.get(self.ledger.stored.remote(ids))):
            yield pa.Table.from_batches([rows])


def embedded(
    paths: Sequence[str], args: argparse.Namespace, space: EmbeddingSpace, stored: Collection[str]
) -> Iterator[EmbeddedFile]:
    """Yield the rows of workers, in the order in which they arrive.

    Ray gives the task of a worker that died to another, and holds back new ones while results wait here.
    """
    embed = EmbedVideos(
        args.encoder,
        segment_seconds=args.segment_seconds,
        overlap=args.overlap,
        workers=args.cpus_per_worker,
        frames=args.frames,
        device=args.device,
        limits=decode_limits(args),
    )
    blocks = min(-(-len(paths) // TASK), MOST_BLOCKS)
    results = ray.data.from_items([{"path": path} for path in paths], override_num_blocks=blocks).map_batches(
        Worker,
        fn_constructor_args=(embed, space, Ledger.remote(stored)),
        batch_size=TASK,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=1, max_size=args.workers, max_tasks_in_flight_per_actor=1),
        num_cpus=args.cpus_per_worker,
        num_gpus=args.gpus_per_worker,
    )
    for table in results.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield from segments_of(table)


def whole_files(rows: Iterable[EmbeddedFile]) -> Iterator[list[EmbeddedFile]]:
    """Gather the rows of each file, which may come mixed with those of other workers.

    A file of which some did not arrive, since its worker died between them, is left out.
    """
    begun: dict[str, list[EmbeddedFile]] = {}
    for row in rows:
        begun.setdefault(row.file.path, []).append(row)
        if row.segment is None or row.segments is not None:  # the last row of a file
            whole = begun.pop(row.file.path)
            if row.segments in (None, len(whole)):
                yield whole


def settle(session: IngestSession, rows: Iterable[EmbeddedFile]) -> set[str]:
    """Store the segments of the workers, and return the files that need not be read again.

    One whose content was stored when the run began, so that no worker embedded it, and has been replaced since,
    is to be read again.
    """
    settled = set()
    for whole in whole_files(rows):
        file, error = whole[-1].file, VideoError(whole[-1].file.path, whole[-1].error)
        segments = [row.segment for row in whole if row.segment is not None]
        if not file.video_id:
            session.skip_unreadable(error)
        elif session.admit(file):
            if error.reason:
                session.fail(error)
            elif segments:
                session.store_video(file.path, iter(segments))
            else:
                continue
        settled.add(file.path)
    return settled


def look_for_machines(args: argparse.Namespace) -> None:
    """Warn if no machine has room for a worker; Ray waits silently, since its autoscaler may start one."""
    if not ray.is_initialized():
        ray.init()
    needed = {"CPU": args.cpus_per_worker, "GPU": args.gpus_per_worker}
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(machine.get(kind, 0) >= n for kind, n in needed.items()) for machine in machines):
        sizes = ", ".join(f"{m.get('CPU', 0):g} and {m.get('GPU', 0):g}" for m in machines)
        print(
            f"A worker needs {needed['CPU']} CPUs and {needed['GPU']:g} GPUs, and no machine of the cluster has "
            f"them (there: {sizes}). Waiting until one joins; stop with Ctrl-C.",
            file=sys.stderr,
        )


def ingest(args: argparse.Namespace) -> IngestReport:
    """Ingest the folders of the command line, as `dits_adapter.stores.ingest.ingest` does."""
    encoder = VideoEncoder.from_pretrained(args.encoder, frames=args.frames, device="cpu")
    tenant = {} if args.tenant is None else {"tenant": args.tenant}
    with (
        open_store(args.store, args.collection, **tenant) as store,
        ingesting(store, args.paths, encoder.space, ingest_options(args)) as session,
    ):
        paths = list(session.unsettled())
        if paths:
            look_for_machines(args)
        for _ in range(2):
            if paths:
                settled = settle(session, embedded(paths, args, encoder.space, session.stored()))
                paths = [path for path in paths if path not in settled]
    return session.report


def main(argv: Sequence[str] | None = None) -> int:
    """Ingest and report; 0 if every video was read, 3 if not, 1 after an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_ingest_options(parser)
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="most processes, on all machines")
    parser.add_argument("--cpus-per-worker", type=int, default=1, metavar="N", help="threads that decode")
    parser.add_argument("--gpus-per-worker", type=float, default=0, metavar="N", help="0.5: two share one")
    args = parser.parse_args(argv)
    if args.workers < 1 or args.cpus_per_worker < 1 or args.gpus_per_worker < 0:
        parser.error("--workers and --cpus-per-worker are at least 1, --gpus-per-worker at least 0")
    context = DataContext.get_current()
    context.enable_progress_bars = False  # there is one of our own
    try:
        report = ingest(args)
    except (DITSError, RayError) as error:
        print(error, file=sys.stderr)
        return 1
    print(report)
    return 3 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
