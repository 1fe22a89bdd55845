"""DITSQueryEncoder: text in, video-aligned unit vector out."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from dits_adapter._extras import name_missing_extra
from dits_adapter._hub import absolute_name, pin
from dits_adapter._reprs import short_repr
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.backends._base import Backend
from dits_adapter.backends._open import backend_of, open_backend
from dits_adapter.encoders.base import Device
from dits_adapter.errors import InputError, SpaceMismatchError, StoreError
from dits_adapter.evaluation.calibration import Calibration
from dits_adapter.space import EmbeddingSpace
from dits_adapter.texts import TextCleaning, check_texts, shown, text_name, warn_if_cut
from dits_adapter.vectors import FloatArray
from dits_adapter.video._formats import VIDEO_SUFFIXES

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from dits_adapter.backends._onnx_export import HeldOutPairs
    from dits_adapter.backends._pytorch import TorchBackend
    from dits_adapter.stores.base import VideoStore
    from dits_adapter.stores.bias import ScoreBias
    from dits_adapter.xpool import XPoolReranker

__all__ = ["DITSQueryEncoder", "OnMismatch", "check_queries"]

OnMismatch = Literal["raise", "warn", "bypass"]
"""Reaction to an encoder or a collection of another space: refuse it, go on, or encode queries as plain CLIP."""

_VIDEO_FILE = re.compile(rf"\S*({'|'.join(map(re.escape, sorted(VIDEO_SUFFIXES)))})", re.IGNORECASE)


def check_queries(texts: str | Iterable[str]) -> list[str]:
    """Return texts as a list once each of them is known to be one to search with.

    Raises:
        InputError: a value that is no text (`dits_adapter.texts`), or the path of a video file, by its row.
    """
    queries = check_texts(texts)
    for row, text in enumerate(queries):
        if _VIDEO_FILE.fullmatch(text):
            raise InputError(
                f"{text_name(row, len(queries))} is the name of a video file ({shown(text)}); embed videos with "
                "VideoEncoder.encode_video."
            )
    return queries


class DITSQueryEncoder:
    """Encoder of queries on the video side, and of documents as plain CLIP embeds them.

    Safe to use from several threads. The first call that needs the text encoder loads it and checks its space
    against the adapter's; `adapt` needs no text encoder. An encoder that `from_pretrained` made can be pickled and
    copied: it is rebuilt from its name and options.

    Attributes:
        strength: movement of queries on the sphere, 0 (plain CLIP) to 1.
        on_mismatch: see `from_pretrained`.

    Examples:
        >>> encoder = DITSQueryEncoder.from_pretrained("demo-dits")
        >>> encoder.encode_query("a large red circle rises over a green field").shape
        (128,)
    """

    def __init__(self, backend: Backend, *, strength: float = 1.0, on_mismatch: OnMismatch = "raise") -> None:
        _check_options(strength, on_mismatch)
        self.strength = strength
        self.on_mismatch: OnMismatch = on_mismatch
        self._backend = backend
        self._name: str | None = None
        self._options: dict[str, Any] = {}
        self._lock = threading.RLock()
        self._model: SentenceTransformer | None = None
        self._checked = False
        self._mismatched = False
        self._cut_warned = False

    def __repr__(self) -> str:
        adapter = self._name or type(self._backend).__name__
        strength = None if self.strength == 1 else self.strength
        return short_repr(self, adapter, space=str(self.space), strength=strength)

    @classmethod
    @name_missing_extra("an adapter that was not exported, or is run on torch,")
    def from_pretrained(
        cls,
        id_or_path: str | PathLike[str],
        *,
        backend: Literal["auto", "torch", "onnx"] = "auto",
        encoder: str | PathLike[str] | None = None,
        revision: str | None = None,
        device: Device = "auto",
        steps: int | None = None,
        strength: float = 1.0,
        on_mismatch: OnMismatch = "raise",
        text_cleaning: TextCleaning | None = None,
        videos: str | PathLike[str] | None = None,
    ) -> DITSQueryEncoder:
        """Load a trained adapter and the encoder that it was trained for.

        Args:
            id_or_path: an artifact's folder, a bundled name (`demo-dits`) or a hub id. The folder or id of a bare
                encoder is taken too, with a warning: without an adapter its queries are plain CLIP.
            backend: `onnx`, for an artifact that `dits-adapter export` wrote: ONNX Runtime on the CPU, without
                torch or transformers, and the text tower that was exported along; or `torch`, which any
                artifact can, and which trajectories, saving and the sentence-transformers model need. `auto`
                takes `onnx` where that was exported and is installed, and no option needs torch.
            encoder: folder or hub id of the encoder; by default the one that the artifact names (torch only).
            revision: hub revision of the artifact, which `options` then names by its commit.
            device: a torch device or `"auto"`. One other than the CPU needs torch, and so decides for it.
            steps: truncated timesteps T' to run instead of the trained number; 0 is plain CLIP (torch only).
            strength: movement of queries on the sphere, 0 (plain CLIP) to 1.
            on_mismatch: reaction when the encoder, or a checked collection, lives in another space than the
                adapter: `raise` refuses, `warn` goes on, `bypass` warns and encodes queries as plain CLIP.
            text_cleaning: cleaning of texts before they are tokenized, for a bare encoder (`load_encoder`). None
                for that of the adapter's space; another one is another space (torch only).
            videos: folder or hub id of the encoder of the videos, for a bare encoder of texts that lead into the
                space of another one's videos, as those of `clip-ViT-B-32-multilingual-v1` do with `clip-ViT-B-32`.

        Raises:
            ArtifactError: the artifact or the encoder cannot be loaded.
            InputError: an option outside its range, or steps for an adapter that has none.
            MissingExtraError: a package that the backend runs on is not installed.
        """
        if backend not in ("auto", "torch", "onnx"):
            raise InputError(f'backend is {backend!r}; it is "auto", "torch" or "onnx".')
        _check_options(strength, on_mismatch)  # before anything is downloaded
        options: dict[str, Any] = {
            "backend": backend,
            "encoder": None if encoder is None else absolute_name(encoder),
            "revision": pin(id_or_path, revision),
            "device": str(device),
            "steps": steps,
            "text_cleaning": text_cleaning,
            "videos": None if videos is None else absolute_name(videos),
        }
        name = absolute_name(id_or_path)
        made = cls(open_backend(name, **options), strength=strength, on_mismatch=on_mismatch)
        made._name, made._options = name, options
        return made

    @classmethod
    @name_missing_extra("an adapter in memory")
    def of(
        cls,
        artifact: Artifact,
        *,
        encoder: str | PathLike[str] | None = None,
        device: Device = "auto",
        strength: float = 1.0,
    ) -> DITSQueryEncoder:
        """Make the encoder of an adapter in memory, such as that of a `TrainingReport`; it runs on torch.

        Args:
            artifact: the adapter.
            encoder: folder or hub id of its text encoder; None for that of a joint adapter or the bundled one, and
                else for none: then it takes vectors (`adapt`), and no texts.
            device, strength: as for `from_pretrained`.

        Raises:
            ArtifactError: the encoder cannot be found.
            InputError: a strength outside 0 to 1.
        """
        _check_options(strength, "raise")
        return cls(backend_of(artifact, encoder, device), strength=strength)

    @property
    def name_or_path(self) -> str | None:
        """Name that `from_pretrained` was given, folders as absolute paths; None for one built otherwise."""
        return self._name

    @property
    def options(self) -> dict[str, Any]:
        """Options with which `from_pretrained(name_or_path, **options)` makes the same encoder; ready for JSON."""
        return {**self._options, "strength": self.strength, "on_mismatch": self.on_mismatch}

    def __reduce__(self) -> tuple[Any, ...]:
        if self._name is None:
            raise InputError(
                "this DITSQueryEncoder was built around a backend, which cannot travel to another process or be "
                "copied; make it with DITSQueryEncoder.from_pretrained(name)."
            )
        state = {"_mismatched": self._mismatched, "_cut_warned": self._cut_warned}
        return _restore, (type(self), self._name, self.options), state

    @property
    def space(self) -> EmbeddingSpace:
        """The embedding space of the adapter, and of every collection that its queries may search."""
        return self._backend.space

    @property
    def calibration(self) -> Calibration | None:
        """Calibration that turns the scores of these queries into probabilities.

        None where the adapter was not calibrated, runs with another strength than 1 or other steps than it was
        trained with, or has met another space (known once a text was encoded).
        """
        return None if self.strength != 1 or self._mismatched else self._backend.calibration

    @property
    def _bypassed(self) -> bool:
        return self._mismatched and self.on_mismatch == "bypass"

    @property
    def query_strength(self) -> float:
        """Strength with which queries move: `strength`, or 0 once `on_mismatch="bypass"` has met another space."""
        return 0.0 if self._bypassed else self.strength

    @property
    def artifact(self) -> Artifact:
        """The trained adapter, which the backend `torch` holds.

        Raises:
            InputError: this encoder runs on ONNX Runtime.
        """
        return self._torch.artifact

    @property
    def _torch(self) -> TorchBackend:
        if not hasattr(self._backend, "artifact"):
            raise InputError('this needs the adapter itself; load it with backend="torch".')
        return self._backend  # type: ignore[return-value]

    def encode_query(self, texts: str | Iterable[str], *, batch_size: int = 64) -> FloatArray:
        """Encode queries on the video side.

        Args:
            texts: any iterable of strings, or one string. Text beyond the tokens that the encoder reads (CLIP: 77)
                is cut off, with a warning the first time.
            batch_size: texts a forward pass.

        Returns:
            Unit vectors (n, d) float32; (d,) for a single string. The same text gives the same vector in every
            batch, to float tolerance.

        Raises:
            InputError: something else than text (`dits_adapter.texts`), or the path of a video file, by row.
            SpaceMismatchError: the encoder is another one than the adapter was trained for
                (`on_mismatch="raise"`).
        """
        return self._encode(texts, batch_size, "query")

    def encode_document(self, texts: str | Iterable[str], *, batch_size: int = 64) -> FloatArray:
        """Encode texts as plain CLIP, never adapted; otherwise as `encode_query`.

        Raises:
            InputError: also where texts and videos lie in two spaces, and there are no plain queries.
        """
        return self._encode(texts, batch_size, "document")

    def embed(self, texts: str | Iterable[str], *, batch_size: int = 64) -> FloatArray:
        """Embed texts as the encoder does, neither adapted nor normalized: (n, d), as `adapt` takes them.

        Arguments and errors are those of `encode_query`.
        """
        return self._encode(texts, batch_size, "embedding")

    def require_image_side(self) -> None:
        """Refuse an encoder that no picture can be searched with; it is loaded for that.

        Raises:
            InputError: it embeds texts alone, or runs on ONNX Runtime.
            SpaceMismatchError: it is not the encoder of the videos.
        """
        _ = self._torch.image_encoder

    @name_missing_extra("a query by a picture")
    def encode_image(self, image: bytes | NDArray[np.uint8]) -> FloatArray:
        """Encode a picture as a query: as a frame of a video, which no adapter moves (backend `torch`).

        The gap that adapters cross is that of texts. Probabilities are of adapted texts, and not of pictures.

        Args:
            image: bytes of a file (JPEG, PNG, WebP, BMP, GIF; one picture of at most 8 MB and 50 million pixels),
                or (h, w, 3) RGB.

        Returns:
            Unit vector (d,) float32.

        Raises:
            InputError: a picture that is too large, animated, broken or of another format, or an encoder without
                an image side.
            SpaceMismatchError: the encoder is not that of the videos.
        """
        backend = self._torch
        from dits_adapter.encoders._images import read_image

        return backend.embed_image(read_image(image) if isinstance(image, bytes) else image)

    @overload
    def adapt(self, vectors: Any, *, return_trajectory: Literal[False] = False) -> FloatArray: ...
    @overload
    def adapt(self, vectors: Any, *, return_trajectory: Literal[True]) -> tuple[FloatArray, FloatArray]: ...

    def adapt(
        self, vectors: Any, *, return_trajectory: bool = False
    ) -> FloatArray | tuple[FloatArray, FloatArray]:
        """Adapt text embeddings without loading the text encoder.

        Args:
            vectors: text embeddings of this space, (n, d) or (d,), array or tensor.
            return_trajectory: also return the sampler's path.

        Returns:
            Unit vectors of the shape of `vectors`, float32 (the input itself where nothing moves: strength 0,
            T' = 0 or a bypass). With `return_trajectory`, also [v_{T'}, …, v_0] before normalization,
            (T' + 1, n, d) float32.

        Raises:
            InputError: wrong shape, NaN, a zero vector, or a trajectory of an adapter without one.
        """
        array = np.asarray(vectors.cpu() if hasattr(vectors, "cpu") else vectors, dtype=np.float32)
        single = array.ndim == 1
        array = array[None] if single else array
        if self.query_strength < 1:
            self.space.require_shared()
        adapted = self._backend.adapt(array, strength=self.query_strength)
        adapted = adapted[0] if single else adapted
        return (adapted, self._backend.trajectory(array)) if return_trajectory else adapted

    def xpool_reranker(self, text: str, query: FloatArray | None = None) -> XPoolReranker:
        """Return a re-ranker of hits by X-Pool, as in `store.search(query, rerank=encoder.xpool_reranker(text))`.

        Args:
            text: text under which the frames of a segment are pooled.
            query: query that is compared with the pooled frames, (d,); by default `encode_query` of the text.

        Raises:
            InputError: the adapter has no X-Pool head, which comes with joint training (backend `torch`).
        """
        from dits_adapter.xpool import XPoolReranker

        if self.artifact.xpool is None:
            raise InputError(
                "this adapter has no X-Pool head, which comes with joint training (dits-adapter train-joint); "
                'rerank="maxsim" needs none.'
            )
        query = self.encode_query(text) if query is None else query
        return XPoolReranker(self.artifact.xpool, query, self.encode_document(text))

    def check(self, store: VideoStore) -> None:
        """Refuse a collection of another embedding space, as `on_mismatch` says.

        Raises:
            SpaceMismatchError: the spaces differ; the message names both (`on_mismatch="raise"`).
            StoreError: no such collection, it cannot be reached, or it does not say which space it is of.
        """
        metadata = store.metadata()
        name = f"the collection {store.name!r}"
        if metadata is None:
            raise StoreError(
                f"{name} does not say which embedding space its vectors live in: something other than "
                "dits_adapter made it."
            )
        theirs = metadata.space.video
        self._guard(lambda: self.space.video.require(theirs, mine="the adapter", theirs=name))

    def beside(self, bias: ScoreBias) -> tuple[DITSQueryEncoder, float]:
        """Return the encoder and the weight of a collection's score bias that a search takes together.

        They are this encoder and the bias's weight, where the bias is for its queries. An encoder with a query
        bank behind such queries (backend `torch`) is returned with half of the bank's weight, and seven tenths of
        the bias's, since each side corrects a part. For other queries the weight is 0.

        Args:
            bias: `store.metadata().bias`.
        """
        texts = np.array(self.space.text.probes, np.float32)
        if not hasattr(self._backend, "artifact"):
            return self, bias.weight if bias.fits(self.adapt(texts)) else 0.0
        own = self._torch.adapter
        adapter, weight = bias.beside(own, texts, self.query_strength)
        if adapter is own:
            return self, weight
        backend = self._torch.with_adapter(adapter)
        return DITSQueryEncoder(backend, strength=self.strength, on_mismatch=self.on_mismatch), weight

    def save_pretrained(self, folder: str | PathLike[str]) -> Path:
        """Write the adapter as an artifact; see `Artifact.save`."""
        return self.artifact.save(folder)

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Upload the adapter and its model card to the hub, and return the address of the commit.

        The token comes from the hub client's own login or from the environment (`HF_TOKEN`).
        """
        import tempfile

        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            folder = self.save_pretrained(Path(scratch) / repo_id.rsplit("/", 1)[-1])
            commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload adapter")
        return str(commit.commit_url)

    @name_missing_extra("exporting to ONNX")
    def export_onnx(self, folder: str | PathLike[str], *, int8: HeldOutPairs | None = None) -> Path:
        """Write an artifact with its ONNX form; see `dits_adapter.backends._onnx_export.export`."""
        backend = self._torch
        from dits_adapter.backends._onnx_export import export

        if not self.space.text.declared:
            self.load()
        return export(backend, folder, int8=int8)

    @name_missing_extra("the sentence-transformers model")
    def as_sentence_transformer(self) -> SentenceTransformer:
        """Return this encoder as a sentence-transformers model: encoder, adapter, normalization, all shared.

        Its `encode_query` adapts; its `encode_document`, `encode` and image inputs stay plain CLIP.
        Its `encode_query` is plain, too, where `on_mismatch="bypass"` has met another space: `check` it first.

        Raises:
            InputError: this encoder runs on ONNX Runtime, or is of a family that sentence-transformers cannot run.
        """
        backend = self._torch
        from dits_adapter.backends._sentence_transformers import sentence_transformer

        self.load()
        with self._lock:
            if self._model is None:
                self._model = sentence_transformer(backend, self.query_strength)
            self._model[1].strength = self.query_strength
            return self._model

    def load(self) -> None:
        """Load the text encoder now, and not with the first text.

        Raises:
            ArtifactError: the text encoder cannot be loaded.
            SpaceMismatchError: the adapter was trained for another encoder (`on_mismatch="raise"`).
        """
        with self._lock:
            if not self._checked:
                actual = self._backend.load()
                self._guard(
                    lambda: self.space.text.require(
                        actual, mine="the adapter", theirs="the encoder that was loaded"
                    )
                )
                self._checked = True

    def _guard(self, require: Callable[[], None]) -> None:
        """Run a space check, and treat its failure as `on_mismatch` says."""
        try:
            require()
        except SpaceMismatchError as error:
            if self.on_mismatch == "raise":
                raise
            self._mismatched = True
            if self._bypassed:
                warnings.warn(f"{error} Queries are encoded as plain CLIP.", stacklevel=4)
            else:
                warnings.warn(f"{error} Going on as asked; expect wrong rankings.", stacklevel=4)

    def _encode(
        self, texts: str | Iterable[str], batch_size: int, task: Literal["query", "document", "embedding"]
    ) -> FloatArray:
        batch = check_queries(texts)
        if task == "document" or (task == "query" and self.query_strength < 1):
            self.space.require_shared()  # before the encoder is loaded
        self.load()
        strength = self.query_strength if task == "query" else 0.0  # after it: another space may be bypassed
        if task == "query" and strength < 1:
            self.space.require_shared()
        if not batch:
            return np.empty((0, self.space.video.width), np.float32)
        self._cut_warned = self._cut_warned or warn_if_cut(batch, self._backend, stacklevel=3)
        if task == "embedding":
            vectors = self._backend.embed(batch, batch_size=batch_size)
        else:
            vectors = self._backend.encode(batch, strength=strength, batch_size=batch_size)
        return vectors[0] if isinstance(texts, str) else vectors


def _check_options(strength: float, on_mismatch: str) -> None:
    if not 0 <= strength <= 1:
        raise InputError(f"strength is {strength}; it goes from 0 (plain CLIP) to 1 (fully adapted).")
    if on_mismatch not in ("raise", "warn", "bypass"):
        raise InputError(f'on_mismatch is {on_mismatch!r}; it is one of "raise", "warn" and "bypass".')


def _restore(cls: type[DITSQueryEncoder], name: str, options: dict[str, Any]) -> DITSQueryEncoder:
    return cls.from_pretrained(name, **options)
