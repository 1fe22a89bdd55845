"""Cross-check by mteb, which searches with our encoder by its own protocol and metrics (the extra `mteb`).

    python -m benchmarks.mteb demo                                     # makes its clips
    python -m benchmarks.mteb msrvtt --root DIR --encoder my-adapter   # the test split on disk as a task for mteb
    python -m benchmarks.mteb msrvtt --hub --encoder my-adapter        # mteb's own task: msrvtt, vatex, didemo

Prints the recall of mteb, and that of `dits_adapter.evaluation.metrics` with the same vectors. mteb's own tasks
have other clips than the papers' (MSR-VTT 879 of the 1,000, VATEX one caption a video): a cross-check of the
encoder, and no figure to print beside the papers'.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.datasets import DATASETS, RetrievalSplit
from benchmarks.vectors import MADE
from dits_adapter import DITSQueryEncoder, VideoEncoder
from dits_adapter.cli import guarded
from dits_adapter.errors import DITSError, MissingExtraError
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.evaluation.comparison import PLAIN
from dits_adapter.evaluation.metrics import DotProducts, RetrievalMetrics, ranks

try:
    import mteb
    from datasets import Dataset, Features, Value, Video
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta
    from mteb.similarity_functions import cos_sim, pairwise_cos_sim
except ImportError:
    raise MissingExtraError("mteb", "mteb", "the outside judge") from None

Vectors = npt.NDArray[np.float32]

HUB = {"msrvtt": "MSRVTTT2V", "vatex": "VATEXT2VRetrieval.v2", "didemo": "DiDeMoT2VRetrieval.v2"}
"""Names of mteb's text-to-video tasks on datasets of the paper."""
SUBSET, SPLIT = "default", "test"
CUTOFFS = (1, 5, 10)


@guarded("benchmarks.mteb")
def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate an encoder by mteb; return the exit code (0 fine, 1 a DITSError, 2 wrong usage)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mteb", description=__doc__.split("\n\n")[0])
    parser.add_argument("dataset", choices=DATASETS)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--root", type=Path, metavar="DIR", help="annotation and videos, as for benchmarks.run")
    source.add_argument("--hub", action="store_true", help=f"mteb's own task instead: {', '.join(HUB)}")
    parser.add_argument(
        "--encoder",
        default="demo-dits",
        metavar="ID",
        help="adapter, or CLIP: hub id, folder or bundled name (default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", help="a torch device (default: %(default)s)")
    args = parser.parse_args(argv)
    dataset = DATASETS[args.dataset]
    if args.hub and args.dataset not in HUB:
        parser.error(f"mteb has no task for {args.dataset}; it has {', '.join(HUB)}")
    if not args.hub and args.root is None and dataset.make is None:
        parser.error("say where the data is, with --root or --hub")
    queries = DITSQueryEncoder.from_pretrained(args.encoder, backend="torch", device=args.device)
    videos = VideoEncoder.from_pretrained(args.encoder, device=args.device)
    if args.hub:
        task = hub_task(HUB[args.dataset])
    else:
        if args.root is None and dataset.make is not None:
            dataset.make(SPLIT, MADE)
        task = local_task(dataset.load(args.root or MADE, SPLIT))
        if dataset.span is not None:
            videos.limit = dataset.span[1]
    print(f"{task.metadata.name}, text to video, mteb {mteb.__version__}\n\n{judge(task, queries, videos)}")
    return 0


def judge(task: AbsTaskRetrieval, queries: DITSQueryEncoder, videos: VideoEncoder) -> str:
    """Evaluate plain CLIP and the adapter, by mteb and by `dits_adapter`, as a Markdown table.

    Args:
        task: a text-to-video task whose data are loaded.
        queries: encodes the texts, with its adapter and without.
        videos: encodes the videos; of the same space.
    """
    encoders = {PLAIN: queries.encode_document}
    if not queries.artifact.adapter.is_plain:
        encoders[queries.artifact.adapter.kind] = queries.encode_query
    rows, corpus = [], Videos(videos)
    for name, encode in encoders.items():
        encoder = Encoder(encode, corpus)
        for by, recalls in (("mteb", by_mteb(task, encoder)), ("benchmarks.run", by_us(task, encoder))):
            rows.append([name, by, *(f"{recall:.2f}" for recall in recalls)])
    return markdown_table(["queries", "judged by", *(f"R@{k}" for k in CUTOFFS)], rows)


def by_mteb(task: AbsTaskRetrieval, encoder: Encoder) -> list[float]:
    """Return mteb's recall at `CUTOFFS`, in percent."""
    result = mteb.evaluate(encoder, task, cache=None, show_progress_bar=False)
    (scores,) = result.task_results[0].scores[SPLIT]
    return [100 * scores[f"recall_at_{k}"] for k in CUTOFFS]


def by_us(task: AbsTaskRetrieval, encoder: Encoder) -> list[float]:
    """Return our recall at `CUTOFFS`, in percent, from the vectors of mteb's last evaluation."""
    data = task.dataset[SUBSET][SPLIT]
    column = {video: number for number, video in enumerate(data["corpus"]["id"])}
    labels = [column[video] for query in data["queries"]["id"] for video in data["relevant_docs"][query]]
    metrics = RetrievalMetrics.from_ranks(ranks(DotProducts(encoder.queries, encoder.videos.vectors), labels))
    return [getattr(metrics, f"r{k}") for k in CUTOFFS]


def hub_task(name: str) -> AbsTaskRetrieval:
    """Load one of mteb's tasks with its data.

    Raises:
        DITSError: the hub does not deliver the data.
    """
    task = mteb.get_task(name)
    try:
        task.load_data()
    except Exception as error:  # the hub client and datasets raise their own, httpx's and OSError
        reason = f"{type(error).__name__}: {error}"
        raise DITSError(f"{name}: its data cannot be had from the hub ({reason})") from error
    return task


def local_task(split: RetrievalSplit) -> AbsTaskRetrieval:
    """Make a task of a split whose videos are all present.

    Raises:
        DITSError: some are missing.
    """
    missing = [video for video, path in zip(split.video_ids, split.paths, strict=True) if path is None]
    if missing:
        count = f"{len(missing):,} of {len(split.paths):,} videos"
        raise DITSError(f"{split.name}: {count} are not there, the first is {missing[0]}; mteb wants them all.")

    class Task(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=split.name,
            description="Find the video that a sentence describes.",
            dataset={"path": "local/files", "revision": "none"},
            type="Any2AnyRetrieval",
            category="t2v",
            modalities=["text", "video"],
            eval_splits=[SPLIT],
            eval_langs=["eng-Latn"],
            main_score="recall_at_1",
        )

    task = Task()
    queries = [str(number) for number in range(len(split.texts))]
    corpus = {"id": split.video_ids, "video": [str(path) for path in split.paths]}
    task.dataset = {
        SUBSET: {
            SPLIT: {
                "queries": Dataset.from_dict({"id": queries, "text": split.texts}),
                "corpus": Dataset.from_dict(corpus, Features({"id": Value("string"), "video": Video()})),
                "relevant_docs": {
                    query: {split.video_ids[label]: 1} for query, label in zip(queries, split.labels, strict=True)
                },
                "top_ranked": None,
            }
        }
    }
    task.data_loaded = True
    return task


class Videos:
    """Video side, which all encoders of one space share: a corpus is embedded once.

    Attributes:
        vectors: vectors of the last corpus, (m, d).
    """

    def __init__(self, encoder: VideoEncoder) -> None:
        self._encoder = encoder
        self._corpus: list[str] = []
        self.vectors: Vectors = np.empty((0, encoder.space.video.width), np.float32)

    def encode(self, corpus: Dataset) -> Vectors:
        """Embed the files of the column `video`, which may lie on disk or in the table, with our own decoder."""
        ids = list(corpus["id"])
        if ids != self._corpus:
            raw = corpus.cast_column("video", Video(decode=False))["video"]
            with tempfile.TemporaryDirectory() as scratch:
                segments = self._encoder.iter_segments(_files(raw, Path(scratch)))
                self.vectors = np.stack([segment.vector for segment in segments])
            self._corpus = ids
        return self.vectors


def _files(videos: Any, scratch: Path) -> Iterator[Path]:
    """Yield a file for each video; a video that comes as bytes is written."""
    for number, video in enumerate(videos):
        if video["bytes"] is None:
            yield Path(video["path"])
        else:
            file = scratch / f"{number}.mp4"  # decoders go by the content
            file.write_bytes(video["bytes"])
            yield file


class Encoder:
    """Encoder as mteb calls it (`EncoderProtocol` of mteb).

    Args:
        encode: texts to unit vectors, (n, d).
        videos: the video side.

    Attributes:
        queries: vectors of the last texts, (n, d).
    """

    def __init__(self, encode: Callable[[list[str]], Vectors], videos: Videos) -> None:
        self._encode = encode
        self.videos = videos
        self.queries: Vectors = np.empty((0, 0), np.float32)
        self.mteb_model_meta = ModelMeta.create_empty({"modalities": ["text", "video"]})

    def encode(self, inputs: Any, **_: Any) -> Vectors:
        """Embed a data loader's texts, or its videos; prompts are for models that were trained with them."""
        if "video" in inputs.dataset.column_names:
            return self.videos.encode(inputs.dataset)
        self.queries = self._encode([text for batch in inputs for text in batch["text"]])
        return self.queries

    similarity = staticmethod(cos_sim)
    similarity_pairwise = staticmethod(pairwise_cos_sim)


if __name__ == "__main__":
    sys.exit(main())
