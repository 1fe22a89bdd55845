"""Generated vectors like CLIP's, in any number: drawn from the moments of real vectors.

No million real video vectors can be shipped, and vectors without structure say nothing about an index: in 512
dimensions independent vectors are all equally far apart. The vectors drawn here have

- two modalities with a gap: a mean for videos, another for texts;
- few directions that matter: the covariance of texts and videos together, with the decay of its eigenvalues;
- neighbors: the part of a vector that is drawn is shared by the segments of a topic, those of a video share more.

Number i of a stream depends on the model and on i alone, so that an interrupted upload goes on where it was.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold, cross_val_predict

from dits_adapter.data.pairs import Pairs
from dits_adapter.sides import TextSide, VideoSide
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.rows import SegmentRow, VideoFile, video_id_of
from dits_adapter.vectors import unit
from dits_adapter.video.encoder import EncodedSegment

CHUNK = 5_000
"""Number of vectors that are drawn together."""
PER_VIDEO = 5
"""Number of consecutive segments of one video."""
FRAMES, SECONDS = 12, 5.0
"""Frames of a segment, and its length in seconds."""
TOPICS = 1_000
SHARES = {"topic": 0.4, "video": 0.4, "segment": 0.2}
"""Shares of the variance: common to a topic's segments, to a video's, and to none."""

MEAN_NORMS, MEAN_COSINE, VARIANCE = (0.73, 0.72), 0.31, 0.47
SHIFT, DECAY = 3, 1.3
"""Moments of videos and texts: norms of the means and the cosine between them, trace of a covariance, and decay of
its eigenvalues, (i + SHIFT) ** -DECAY. Values of 500 COCO pictures and captions under CLIP ViT-B/16, the
data of Liang et al., "Mind the Gap" (NeurIPS 2022)."""
PEAKS = 3
"""Power of a normal variable that a coordinate of a mean is. CLIP's means lie in a few coordinates; the others
change their sign from vector to vector, on which binary quantization relies: the mean sign of a coordinate is .22
away from 0 here and .27 there, where independent axes would have .53."""
CORRELATION, REACH, ALIGNMENT = 0.6, 50, 0.9
"""Correlation of a text with its video in the first direction; direction at which the correlation has fallen to
1 / e; share of it along the video's own directions: chosen so that the mean cosine of a pair equals COCO's."""

Vectors: TypeAlias = NDArray[np.float32]
Stream = Literal["segments", "training", "validation", "test"]
_STREAMS: tuple[Stream, ...] = ("segments", "training", "validation", "test")


@dataclass(frozen=True)
class PairModel:
    """Joint distribution of the texts and videos of an embedding space.

    A video is `video_mean + video_factor x`, its text `text_mean + shared x + own y`; x and y are standard normal,
    x is clustered. Both are then scaled to unit norm.

    Attributes:
        source: origin of the moments, in words.
        space: the embedding space.
        video_mean, text_mean: (d,) float32.
        video_factor, shared, own: (d, d) float32.
    """

    source: str
    space: EmbeddingSpace
    video_mean: Vectors
    text_mean: Vectors
    video_factor: Vectors
    shared: Vectors
    own: Vectors

    @classmethod
    def like(cls, pairs: Pairs, name: str) -> PairModel:
        """Estimate the moments of pairs, which may be fewer than d.

        Covariances are Ledoit and Wolf's. A ridge regression predicts a text from its video, and the residual is
        measured on videos outside the fit, so that chance does not pass for dependence.
        """
        video, text = unit(pairs.video)[pairs.labels], unit(pairs.text)
        regression = RidgeCV(np.logspace(-3, 3, 13))
        folds = GroupKFold(5, shuffle=True, random_state=0)
        predicted = cross_val_predict(regression, video, text, groups=pairs.labels, cv=folds)
        factor, own = _factor(video), _factor(text - predicted)
        shared = (regression.fit(video, text).coef_ @ factor).astype(np.float32)
        source = f"the moments of {len(pairs):,} pairs of {name} ({pairs.space})"
        return cls(source, pairs.space, video.mean(0), text.mean(0), factor, shared, own)

    @classmethod
    def standard(cls, width: int) -> PairModel:
        """Make up moments that resemble those of CLIP ViT-B/16 on COCO, for any width."""
        random, number = np.random.default_rng(0), np.arange(1, width + 1)
        axes, turned = (np.linalg.qr(random.normal(size=(width, width)))[0] for _ in range(2))
        eigenvalues = (number + SHIFT) ** -DECAY
        scales = np.sqrt(VARIANCE * eigenvalues / eigenvalues.sum())
        correlations = CORRELATION * np.exp(-number / REACH)
        aligned = ALIGNMENT * axes + math.sqrt(1 - ALIGNMENT**2) * turned
        first, second = np.linalg.qr(random.normal(size=(width, 2)) ** PEAKS)[0].T
        text_mean = MEAN_COSINE * first + math.sqrt(1 - MEAN_COSINE**2) * second
        arrays = (
            MEAN_NORMS[0] * first,
            MEAN_NORMS[1] * text_mean,
            axes * scales,
            aligned * correlations * scales,
            axes * np.sqrt(1 - correlations**2) * scales,
        )
        source = f"made-up moments that resemble those of CLIP ViT-B/16 on COCO, in {width} dimensions"
        return cls(source, made_up_space("generated", width), *(array.astype(np.float32) for array in arrays))

    @cached_property
    def digest(self) -> str:
        """Digest of the model, 16 hex digits: models that draw other vectors have another."""
        digest = hashlib.sha256(repr((CHUNK, PER_VIDEO, TOPICS, SHARES)).encode())
        for array in (self.video_mean, self.text_mean, self.video_factor, self.shared, self.own):
            digest.update(array.round(5).tobytes())
        return digest.hexdigest()[:16]

    def segments(self, chunk: int) -> Vectors:
        """Draw the segments from number `chunk` · CHUNK on, (CHUNK, d); `PER_VIDEO` in a row are of one video."""
        return unit(self.video_mean + self._latent("segments", chunk) @ self.video_factor.T)

    def queries(self, count: int, among: int) -> Vectors:
        """Draw texts of `count` of the first `among` segments, (count, d); at most CHUNK of either."""
        rows = np.linspace(0, min(among, CHUNK) - 1, count).astype(int)
        return self._texts(self._latent("segments", 0)[rows], np.random.default_rng([1, len(_STREAMS)]))

    def pairs(self, stream: Stream, count: int) -> Pairs:
        """Draw pairs of other videos of the same topics, at most CHUNK / PER_VIDEO, with one text each."""
        x = self._latent(stream, 0)[::PER_VIDEO][:count]
        videos = unit(self.video_mean + x @ self.video_factor.T)
        texts = self._texts(x, np.random.default_rng([1, _STREAMS.index(stream)]))
        return Pairs(texts, videos, np.arange(len(x)), self.space)

    def _texts(self, x: Vectors, random: np.random.Generator) -> Vectors:
        y = random.standard_normal(x.shape, np.float32)
        return unit(self.text_mean + x @ self.shared.T + y @ self.own.T)

    @cached_property
    def _topics(self) -> Vectors:
        return np.random.default_rng(0).standard_normal((TOPICS, len(self.own)), np.float32)

    def _latent(self, stream: Stream, chunk: int) -> Vectors:
        """Draw x of `CHUNK` segments."""
        random, width = np.random.default_rng([_STREAMS.index(stream), chunk]), len(self.own)
        topics = self._topics[random.integers(0, TOPICS, CHUNK // PER_VIDEO)]
        videos = random.standard_normal(topics.shape, np.float32)
        common = math.sqrt(SHARES["topic"]) * topics + math.sqrt(SHARES["video"]) * videos
        alone = random.standard_normal((CHUNK, width), np.float32)
        x: Vectors = common.repeat(PER_VIDEO, axis=0) + np.float32(math.sqrt(SHARES["segment"])) * alone
        return x


def segment_row(number: int, vector: Vectors) -> SegmentRow:
    """Describe a generated segment as ingestion does, with its pooled vector and no frame vectors."""
    video, position = divmod(number, PER_VIDEO)
    start = position * SECONDS
    segment = EncodedSegment(
        path=f"/videos/{video // 1000:04d}/{video:07d}.mp4",
        start=start,
        end=start + SECONDS,
        fps=25.0,
        duration=PER_VIDEO * SECONDS,
        vector=vector,
        frame_vectors=np.empty((0, len(vector)), np.float32),
        timestamps=start + SECONDS * (np.arange(FRAMES) + 0.5) / FRAMES,
        decoder="generated",
    )
    file = VideoFile(segment.path, 1_000_000, 1_700_000_000_000_000_000, video_id_of(f"{video:064x}"))
    return SegmentRow.of(file, segment, segments=PER_VIDEO if position == PER_VIDEO - 1 else None)


def _factor(samples: Vectors) -> Vectors:
    """Return a (d, d) float32 square root of the covariance of samples (n, d)."""
    root: Vectors = np.linalg.cholesky(LedoitWolf().fit(samples).covariance_).astype(np.float32)
    return root


def made_up_space(name: str, width: int) -> EmbeddingSpace:
    """Make a space without a CLIP behind it, whose digest is that of the name."""
    canaries = tuple(map(tuple, np.eye(4, width).tolist()))
    digest = hashlib.sha256(name.encode()).hexdigest()
    made_up: dict[str, Any] = {"encoder": name, "weights_sha256": digest, "width": width}
    return EmbeddingSpace(
        text=TextSide(**made_up, canaries=canaries), video=VideoSide(**made_up, canaries=canaries[:2], frames=12)
    )
