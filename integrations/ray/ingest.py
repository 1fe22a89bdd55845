"""Embed many videos on many machines, with Ray Data, and store them as `dits-adapter ingest` does on one.

    python integrations/ray/ingest.py /mnt/videos --store http://qdrant:6333 --workers 8 --gpus-per-worker 1

The options are those of `dits-adapter ingest`. Workers read, decode and embed. This one process decides which
files to embed and writes everything, so that a worker may die at any moment.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dits_adapter import DITSError, VideoEncoder
from dits_adapter._hub import bundled
from dits_adapter.cli import add_ingest_options, decode_limits, ingest_options
from dits_adapter.errors import MissingExtraError, VideoError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores._discover import identify
from dits_adapter.stores.ingest import ingesting
from dits_adapter.stores.open import open_store
from dits_adapter.stores.report import IngestReport
from dits_adapter.stores.rows import VideoFile
from dits_adapter.stores.session import IngestSession
from dits_adapter.video.encoder import EncodedSegment

try:
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.exceptions import RayError
except ModuleNotFoundError as error:
    raise MissingExtraError("ray[data]", "ray", "ingestion on many machines") from error

TASK = 8
"""Files that a worker is given at a time: enough to decode one while another is embedded."""
DEATHS = 2
"""Workers that a file may kill, when it is alone, before it is given up."""

Result = tuple[str, VideoFile | None, str, list[EncodedSegment]]
"""A path, the file's content, why it gives no frames, and its segments: none of content that is stored already."""


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Begun:
    """Record of the files that workers began and did not end: one of them may have killed its worker."""

    def __init__(self) -> None:
        self.times: Counter[tuple[str, ...]] = Counter()

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
        args: of the command line.
        space: the embedding space that its vectors have to be of.
        stored: ids of the videos that the collection holds.
        begun: the `Begun` of all workers.
    """

    def __init__(self, args: argparse.Namespace, space: EmbeddingSpace, stored: set[str], begun: Any) -> None:
        self.args = args
        self.encoder = VideoEncoder.from_pretrained(args.encoder, frames=args.frames, limits=decode_limits(args))
        space.require(self.encoder.space, mine="the driver", theirs=f"the worker on {socket.gethostname()}")
        self.stored = stored
        self.begun = begun

    def __call__(self, task: dict[str, Any]) -> dict[str, list[Result]]:
        """Turn a column of paths into one of results."""
        paths = [str(path) for path in task["item"]]
        if ray.get(self.begun.begin.remote("together", *paths)) == 1:
            return {"result": self.embed(paths)}
        return {"result": [self.embed_alone(path) for path in paths]}

    def embed_alone(self, path: str) -> Result:
        """Embed a file that may be one that kills its process: a decoder's crash, or no memory left."""
        if ray.get(self.begun.begin.remote("alone", path)) > DEATHS:
            return path, identify(path), "the process that reads it dies, each time", []
        (result,) = self.embed([path])
        ray.get(self.begun.end.remote("alone", path))
        return result

    def embed(self, paths: Sequence[str]) -> list[Result]:
        """Read, decode and embed files."""
        files: dict[str, VideoFile] = {}
        reasons: dict[str, str] = {}
        segments: dict[str, list[EncodedSegment]] = defaultdict(list)
        for path in paths:
            try:
                files[path] = identify(path)
            except VideoError as error:
                reasons[path] = error.reason
        for segment in self.encoder.iter_segments(
            [path for path, file in files.items() if file.video_id not in self.stored],
            segment_seconds=self.args.segment_seconds,
            overlap=self.args.overlap,
            workers=self.args.cpus_per_worker,
            on_error=lambda error: reasons.update({error.path: error.reason}),
        ):
            segments[segment.path].append(segment)
        return [(path, files.get(path), reasons.get(path, ""), segments[path]) for path in paths]


def embedded(
    paths: Sequence[str], args: argparse.Namespace, space: EmbeddingSpace, stored: set[str]
) -> Iterator[Result]:
    """Yield the results of workers, in the order in which they arrive.

    Ray gives the task of a worker that died to another, and holds back new ones while results wait here.
    """
    tasks = ray.data.from_items(paths, override_num_blocks=-(-len(paths) // TASK))
    results = tasks.map_batches(
        Worker,
        fn_constructor_args=(args, space, stored, Begun.remote()),
        batch_size=TASK,
        compute=ActorPoolStrategy(size=args.workers, max_tasks_in_flight_per_actor=1),
        num_cpus=args.cpus_per_worker,
        num_gpus=args.gpus_per_worker,
    )
    for row in results.iter_rows():
        yield row["result"]


def settle(session: IngestSession, results: Iterable[Result]) -> list[str]:
    """Store the segments of the workers, and return the files that have to be read again.

    Their content was stored when the run began, so that no worker embedded it, and has been replaced since.
    """
    again = []
    for path, file, reason, segments in results:
        if file is None:
            session.skip_unreadable(VideoError(path, reason))
        elif session.admit(file):
            if reason:
                session.fail(VideoError(path, reason))
            elif segments:
                session.store_video(path, iter(segments))
            else:
                again.append(path)
    return again


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
    if os.path.isdir(args.encoder) and not bundled(args.encoder):
        args.encoder = os.path.abspath(args.encoder)  # workers have another working directory
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
                paths = settle(session, embedded(paths, args, encoder.space, session.stored()))
    return session.report


def main(argv: Sequence[str] | None = None) -> int:
    """Ingest and report; 0 if every video was read, 3 if not, 1 after an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_ingest_options(parser)
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes, on all machines")
    parser.add_argument("--cpus-per-worker", type=int, default=1, metavar="N", help="threads that decode")
    parser.add_argument("--gpus-per-worker", type=float, default=0, metavar="N", help="0.5: two share one")
    args = parser.parse_args(argv)
    if args.workers < 1 or args.cpus_per_worker < 1 or args.gpus_per_worker < 0:
        parser.error("--workers and --cpus-per-worker are at least 1, --gpus-per-worker at least 0")
    context = DataContext.get_current()
    context.enable_progress_bars = False  # there is one of our own
    context.enable_fallback_to_arrow_object_ext_type = True  # results are objects, and Ray need not warn of it
    try:
        report = ingest(args)
    except (DITSError, RayError) as error:
        print(error, file=sys.stderr)
        return 1
    print(report)
    return 3 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
