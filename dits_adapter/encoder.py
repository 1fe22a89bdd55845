"""DITSQueryEncoder: text in, video-aligned unit vector out."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from dits_adapter._extras import name_missing_extra
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.artifact.find import find_artifact, is_artifact, is_exported
from dits_adapter.backends.base import Array, Backend
from dits_adapter.errors import InputError, SpaceMismatchError
from dits_adapter.evaluation.calibration import Calibration
from dits_adapter.space import EmbeddingSpace

if TYPE_CHECKING:
    import torch
    from qdrant_client import QdrantClient
    from sentence_transformers import SentenceTransformer

    from dits_adapter.backends.pytorch import TorchBackend
    from dits_adapter.data.pairs import Pairs
    from dits_adapter.encoders.clip import ClipSource
    from dits_adapter.xpool import XPoolReranker

OnMismatch = Literal["raise", "warn", "bypass"]
VIDEO_FILE = re.compile(r"\S*\.(mp4|m4v|mov|avi|mkv|webm|mpe?g|ts|flv|wmv|3gp|ogv)", re.IGNORECASE)


def onnx_installed() -> bool:
    """Tell whether `backend="onnx"` has what it imports."""
    return all(find_spec(package) for package in ("onnxruntime", "tokenizers"))


def check_texts(texts: Iterable[str]) -> None:
    """Refuse what is no text to search with.

    Raises:
        InputError: something else than a string, or the path of a video file, and which.
    """
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {row} is of type {type(text).__name__}; only strings are accepted.")
        if VIDEO_FILE.fullmatch(text):
            raise InputError(
                f"text {row} is the name of a video file ({text}); embed videos with VideoEncoder.encode_video."
            )


class DITSQueryEncoder:
    """Encodes queries so that they lie among the videos, and documents as plain CLIP does.

    Safe to use from several threads. The CLIP is loaded by the first call that needs it, and its space is checked
    against the adapter's then; `adapt` needs none.

    Example:
        >>> encoder = DITSQueryEncoder.from_pretrained("demo-dits")
        >>> encoder.encode_query("a large red circle rises over a green field").shape
        (128,)
    """

    def __init__(self, backend: Backend, *, strength: float = 1.0, on_mismatch: OnMismatch = "raise") -> None:
        if on_mismatch not in ("raise", "warn", "bypass"):
            raise InputError(f'on_mismatch is {on_mismatch!r}; it is one of "raise", "warn" and "bypass".')
        self.strength = strength
        self.on_mismatch: OnMismatch = on_mismatch
        self._backend = backend
        self._lock = threading.RLock()
        self._checked = False
        self._mismatched = False
        self._truncation_said = False

    @classmethod
    @name_missing_extra("an adapter that was not exported, or is run on torch,")
    def from_pretrained(
        cls,
        id_or_path: str | PathLike[str],
        *,
        backend: Literal["auto", "torch", "onnx"] = "auto",
        encoder: str | PathLike[str] | None = None,
        revision: str | None = None,
        device: str | torch.device = "auto",
        steps: int | None = None,
        strength: float = 1.0,
        on_mismatch: OnMismatch = "raise",
    ) -> DITSQueryEncoder:
        """Load a trained adapter and the CLIP that it was trained for.

        Args:
            id_or_path: an artifact's folder, a bundled name (`demo-dits`) or a hub id. The folder or id of a bare
                CLIP is taken too, with a warning: without an adapter its queries are plain CLIP.
            backend: `onnx`, for an artifact that `dits-adapter export` wrote: ONNX Runtime on the CPU, without
                torch or transformers, and the CLIP text tower that was exported along; or `torch`, which any
                artifact can, and which trajectories, saving and the sentence-transformers model need. `auto`
                takes `onnx` where that was exported and is installed, and nothing is asked that is torch's alone.
            encoder: folder or hub id of the CLIP; by default the one that the artifact names (torch only).
            revision: hub revision of the artifact.
            device: a torch device or `"auto"`. Another one than the CPU is torch's alone, and so decides for it.
            steps: truncated timesteps T' to run instead of the trained number; 0 is plain CLIP (torch only).
            strength: how far queries move on the sphere, 0 (plain CLIP) to 1.
            on_mismatch: what to do when the CLIP, or a checked collection, lives in another space than the
                adapter: `raise` refuses, `warn` goes on, `bypass` warns and encodes queries as plain CLIP.

        Raises:
            ArtifactError: the artifact or the CLIP cannot be loaded.
            InputError: an option outside its range, or steps for an adapter that has none.
            MissingExtraError: ONNX Runtime, or the packages of the extra `torch`, are not installed.
        """
        if not 0 <= strength <= 1:
            raise InputError(f"strength is {strength}; it goes from 0 (plain CLIP) to 1 (fully adapted).")
        if backend not in ("auto", "torch", "onnx"):
            raise InputError(f'backend is {backend!r}; it is "auto", "torch" or "onnx".')
        folder = find_artifact(id_or_path, revision, onnx=backend == "onnx")
        given = {"encoder": encoder, "steps": steps, "device": None if str(device) in ("auto", "cpu") else device}
        of_torch = [name for name, value in given.items() if value is not None]
        if backend == "auto" and not of_torch and is_artifact(folder) and onnx_installed():
            folder = find_artifact(id_or_path, revision, onnx=True)
            backend = "onnx" if is_exported(folder) else "torch"
        if backend == "onnx":
            from dits_adapter.backends.onnx_runtime import OnnxBackend

            if of_torch:
                raise InputError(
                    f'{of_torch[0]} cannot be chosen with backend="onnx", which runs on the CPU what was exported.'
                )
            return cls(OnnxBackend(folder, strength=strength), strength=strength, on_mismatch=on_mismatch)

        from dits_adapter.artifact.find import find_encoder
        from dits_adapter.backends.pytorch import TorchBackend
        from dits_adapter.encoders.clip import ClipSource, is_clip

        if not is_artifact(folder) and is_clip(folder):
            return cls._plain(ClipSource.find(id_or_path, revision), device)
        artifact = Artifact.load(folder)
        if steps is not None and steps != artifact.adapter.steps:
            artifact.adapter, artifact.calibration = artifact.adapter.with_steps(steps), None
        if encoder is not None:
            source = ClipSource.find(encoder)
        else:
            source = ClipSource.find(find_encoder(folder, artifact.space), artifact.space.revision)
        chosen = TorchBackend(artifact, source, device=device, strength=strength)
        return cls(chosen, strength=strength, on_mismatch=on_mismatch)

    @classmethod
    def _plain(cls, source: ClipSource, device: str | torch.device) -> DITSQueryEncoder:
        """Stand in for an adapter that has not been trained yet."""
        from dits_adapter.adapters import AffineAdapter, AffineConfig
        from dits_adapter.backends.pytorch import TorchBackend
        from dits_adapter.encoders.clip import load_clip

        warnings.warn(
            f"{source.name} is a CLIP without an adapter: its queries are encoded as plain CLIP. "
            "Train an adapter for it with: dits-adapter train",
            stacklevel=3,
        )
        space = EmbeddingSpace.of(load_clip(source.location, revision=source.revision, device=device))
        identity = AffineAdapter(AffineConfig(width=space.width)).eval()
        return cls(TorchBackend(Artifact(identity, space), source, device=device, strength=1.0))

    @property
    def space(self) -> EmbeddingSpace:
        """The embedding space of the adapter, and of every collection that its queries may search."""
        return self._backend.space

    @property
    def calibration(self) -> Calibration | None:
        """What turns the scores of these queries into probabilities.

        None where the adapter was not calibrated, runs with another strength than 1 or other steps than it was
        trained with, or has met another space (known once a text was encoded).
        """
        return None if self.strength != 1 or self._mismatched else self._backend.calibration

    @property
    def _bypassed(self) -> bool:
        return self._mismatched and self.on_mismatch == "bypass"

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

    def encode_query(self, texts: str | Iterable[str], *, batch_size: int = 64) -> Array:
        """Encode queries on the video side.

        Args:
            texts: any iterable of strings, or one string. Text beyond CLIP's 77 tokens is cut off, with a warning
                the first time.
            batch_size: texts a forward pass.

        Returns:
            Unit vectors (n, d) float32; (d,) for a single string. The same text gives the same vector in every
            batch, to float tolerance.

        Raises:
            InputError: something else than text, or the path of a video file.
            SpaceMismatchError: the CLIP is another one than the adapter was trained for (`on_mismatch="raise"`).
        """
        return self._encode(texts, "query", batch_size)

    def encode_document(self, texts: str | Iterable[str], *, batch_size: int = 64) -> Array:
        """Encode texts as plain CLIP, never adapted; otherwise as `encode_query`."""
        return self._encode(texts, "document", batch_size)

    @overload
    def adapt(self, vectors: Any, *, return_trajectory: Literal[False] = False) -> Array: ...
    @overload
    def adapt(self, vectors: Any, *, return_trajectory: Literal[True]) -> tuple[Array, Array]: ...

    def adapt(self, vectors: Any, *, return_trajectory: bool = False) -> Array | tuple[Array, Array]:
        """Move text embeddings that somebody already has; loads no text encoder.

        Args:
            vectors: text embeddings of this space, (n, d) or (d,), array or tensor.
            return_trajectory: also return the sampler's path.

        Returns:
            Unit vectors of the shape given, float32 (the input itself where nothing moves: strength 0, T' = 0 or
            a bypass). With `return_trajectory`, also [v_{T'}, …, v_0] before
            normalization, (T' + 1, n, d) float32.

        Raises:
            InputError: wrong shape, NaN, a zero vector, or a trajectory asked of an adapter that has none.
        """
        array = np.asarray(vectors.cpu() if hasattr(vectors, "cpu") else vectors, dtype=np.float32)
        single = array.ndim == 1
        array = array[None] if single else array
        adapted = self._backend.adapt(array, strength=0.0 if self._bypassed else self.strength)
        adapted = adapted[0] if single else adapted
        return (adapted, self._backend.trajectory(array)) if return_trajectory else adapted

    def xpool_reranker(self, text: str, query: Array | None = None) -> XPoolReranker:
        """Return what re-ranks hits by X-Pool: `store.search(query, rerank=encoder.xpool_reranker(text, query))`.

        Args:
            text: pools the frames of a segment.
            query: is compared with what was pooled, (d,); by default `encode_query` of the text.

        Raises:
            InputError: the adapter carries no X-Pool head; those trained jointly with CLIP do (backend `torch`).
        """
        from dits_adapter.xpool import XPoolReranker

        if self.artifact.xpool is None:
            raise InputError(
                "this adapter has no X-Pool head, which comes with joint training (dits-adapter train-joint); "
                'rerank="maxsim" needs none.'
            )
        query = self.encode_query(text) if query is None else query
        return XPoolReranker(self.artifact.xpool, query, self.encode_document(text))

    def check(self, client: QdrantClient, collection: str) -> None:
        """Refuse a Qdrant collection of another embedding space, as `on_mismatch` says.

        Raises:
            SpaceMismatchError: naming both spaces and their differences (`on_mismatch="raise"`).
        """
        from dits_adapter.stores.qdrant.store import collection_space

        theirs = collection_space(client, collection)
        self._guard(
            lambda: self.space.require(theirs, mine="the adapter", theirs=f"the collection {collection!r}")
        )

    def save_pretrained(self, folder: str | PathLike[str]) -> Path:
        """Write the adapter as an artifact; see `Artifact.save`."""
        return self.artifact.save(folder)

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Upload the adapter and its model card to the hub; returns the commit's address.

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
    def export_onnx(self, folder: str | PathLike[str], *, int8: Pairs | None = None) -> Path:
        """Write an artifact that `backend="onnx"` can load, too; see `dits_adapter.export.export`."""
        from dits_adapter.backends.onnx_export import export

        self._load()
        return export(self._torch, folder, int8=int8)

    def as_sentence_transformer(self) -> SentenceTransformer:
        """Return the sentence-transformers model behind this encoder: CLIP, adapter, normalization.

        Its `encode_query` adapts; its `encode_document`, `encode` and image inputs stay plain CLIP.
        Its `encode_query` is plain, too, where `on_mismatch="bypass"` has met another space: `check` it first.
        """
        self._load()
        model = self._torch.model
        model[1].strength = 0.0 if self._bypassed else self.strength
        return model

    def _load(self) -> None:
        """Load the text tower and see that it is the one that the adapter was trained for."""
        with self._lock:
            if not self._checked:
                actual = self._backend.load()
                self._guard(
                    lambda: self.space.require(actual, mine="the adapter", theirs="the encoder that was loaded")
                )
                self._checked = True

    def _guard(self, require: Callable[[], None]) -> None:
        """Run a space check and do what `on_mismatch` says where it fails."""
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

    def _encode(self, texts: str | Iterable[str], task: str, batch_size: int) -> Array:
        single = isinstance(texts, str)
        batch = [texts] if isinstance(texts, str) else list(texts)
        check_texts(batch)
        self._load()
        if not batch:
            return np.empty((0, self.space.width), np.float32)
        self._warn_if_truncated(batch)
        adapted = task == "query" and not self._bypassed
        vectors = self._backend.encode(batch, adapted=adapted, batch_size=batch_size)
        return vectors[0] if single else vectors

    def _warn_if_truncated(self, texts: list[str]) -> None:
        """Warn, once, of a text that is longer than CLIP reads."""
        limit = self._backend.max_tokens
        long = [] if self._truncation_said else [text for text in texts if len(text) > limit - 2]
        if not long:  # a token has at least one character
            return
        counts = self._backend.count_tokens(long)
        if max(counts) > limit:
            self._truncation_said = True
            warnings.warn(
                f"a text has {max(counts)} tokens; CLIP reads the first {limit} and ignores the rest "
                f"(said once): {long[int(np.argmax(counts))][:60]!r}…",
                stacklevel=4,
            )
