"""ONNX backend: an adapter that `dits-adapter export` wrote, on ONNX Runtime, tokenizers and NumPy."""

from __future__ import annotations

import os
import threading
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dits_adapter._files import read_whole, require_sha256
from dits_adapter._wording import validated
from dits_adapter.artifact._config import CONFIG, ONNX, read_config
from dits_adapter.artifact._find import is_exported
from dits_adapter.backends._base import unloadable
from dits_adapter.errors import ArtifactError, InputError, MissingExtraError
from dits_adapter.sides import CANARY_TEXTS, Canaries, TextSide
from dits_adapter.texts import clean_texts, require_cleaning
from dits_adapter.vectors import FloatArray, check_directions, check_vectors, unit

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

__all__ = [
    "ADAPTER",
    "TOKENIZER",
    "TOWER",
    "OnnxBackend",
    "OnnxConfig",
    "onnx_installed",
    "open_session",
    "token_inputs",
]

ADAPTER, TOWER, TOKENIZER = "adapter.onnx", "text.onnx", "tokenizer.json"


def onnx_installed() -> bool:
    """Tell whether the packages that `OnnxBackend` imports are installed."""
    return all(find_spec(package) for package in ("onnxruntime", "tokenizers"))


class OnnxConfig(BaseModel):
    """Contents of `onnx/config.json`.

    Attributes:
        format_version: version of this layout.
        artifact: checksum of the artifact that was exported; another one needs another export.
        weights: weights of the adapter.
        probes: raw embeddings of `CANARY_TEXTS`, (4, d).
        adapted: the same, adapted by the trained adapter in float32, unit vectors (4, d).
        cosine: least cosine of the exported adapter's results to those, on every machine.
        quality: retrieval with float32 and with int8 weights on held-out pairs, for people.
        sha256: digests of the files. Without `ADAPTER` among them, the adapter moves nothing; without `TOWER`, it
            takes vectors, and no texts.
    """

    model_config = ConfigDict(extra="forbid")

    format_version: Literal[1] = 1
    artifact: str
    weights: Literal["float32", "int8"] = "float32"
    probes: Canaries
    adapted: Canaries
    cosine: float
    quality: dict[str, Any] = Field(default_factory=dict)
    sha256: dict[str, str]

    @model_validator(mode="after")
    def _whole(self) -> OnnxConfig:
        widths = [{len(row) for row in rows} for rows in (self.probes, self.adapted)]
        if any(len(of_rows) != 1 for of_rows in widths) or len(self.probes) != len(self.adapted):
            raise ValueError("probes and adapted are not of one shape")
        if (missing := {TOWER, TOKENIZER} - self.sha256.keys()) and len(missing) < 2:
            raise ValueError(f"sha256 names no {min(missing)}")
        if elsewhere := [name for name in self.sha256 if name != Path(name).name]:
            raise ValueError(f"sha256 names {elsewhere[0]!r}, which is no file of the folder")
        return self


class OnnxBackend:
    """Backend on the CPU, on as many threads as `OMP_NUM_THREADS` says; by default one for each core.

    Args:
        folder: the artifact.

    Raises:
        ArtifactError: there is no export of this adapter, a file of it was changed, or it computes something else
            on this machine than it did where it was exported.
        MissingExtraError: ONNX Runtime, or what cleans the space's texts, is not installed.
    """

    def __init__(self, folder: Path) -> None:
        read_whole(folder, lambda: self._read(folder))

    def _read(self, folder: Path) -> None:
        artifact = read_config(folder)
        self.space = artifact.space
        require_cleaning(self.space.text.text_cleaning)
        self.calibration = artifact.calibration
        self._folder = folder / ONNX
        self._lock = threading.Lock()
        self._config = _read(folder, artifact.checksum, artifact.space.text.width)
        self._adapter = self._open(ADAPTER) if ADAPTER in self._config.sha256 else None
        self._probe()

    def _open(self, name: str) -> InferenceSession:
        for file, digest in self._config.sha256.items():
            if file.startswith(name):  # its weights may lie beside it
                require_sha256(self._folder / file, digest)
        return open_session(self._folder / name, _threads())

    def _probe(self) -> None:
        adapted = unit(self.adapt(np.array(self._config.probes, np.float32), strength=1.0))
        cosine = float(np.min(np.sum(adapted * np.array(self._config.adapted), axis=1)))
        if not cosine >= self._config.cosine:
            raise ArtifactError(
                f"{self._folder / ADAPTER}: computes something else on this machine than where it was exported "
                f"(cosine {cosine:.5f}, at least {self._config.cosine} is expected). Export the adapter with "
                'float32 weights, or use backend="torch".'
            )

    @property
    def has_tower(self) -> bool:
        """True where the text tower was exported along; without, vectors are adapted, and no texts embedded."""
        return TOWER in self._config.sha256

    def load(self) -> TextSide:
        """See `Backend.load`."""
        if not self.has_tower:
            raise unloadable(self.space.text)
        with self._lock:
            vectors = unit(self._embed(list(CANARY_TEXTS)))
        return self.space.text.model_copy(update={"canaries": tuple(map(tuple, vectors.tolist()))})

    @cached_property
    def _tower(self) -> InferenceSession:
        return read_whole(self._folder.parent, lambda: self._open(TOWER))

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise MissingExtraError("tokenizers", None, 'backend="onnx"') from None
        path = self._folder / TOKENIZER

        def read() -> Tokenizer:
            require_sha256(path, self._config.sha256[TOKENIZER])
            try:
                return Tokenizer.from_file(str(path))
            except Exception as error:  # tokenizers has no class of its own for it
                raise ArtifactError(f"{path}: is no tokenizer ({error}). Export the adapter again.") from None

        return read_whole(self._folder.parent, read)

    @cached_property
    def _counter(self) -> Tokenizer:
        from tokenizers import Tokenizer

        counter = Tokenizer.from_str(self._tokenizer.to_str())
        counter.no_truncation()
        counter.no_padding()
        return counter

    @property
    def max_tokens(self) -> int:
        """See `Backend.max_tokens`."""
        assert self._tokenizer.truncation is not None
        return int(self._tokenizer.truncation["max_length"])

    def count_tokens(self, texts: list[str]) -> list[int]:
        """See `Backend.count_tokens`."""
        cleaned = clean_texts(texts, self.space.text.text_cleaning)
        return [len(encoding.ids) for encoding in self._counter.encode_batch(cleaned)]

    def embed(self, texts: list[str], *, batch_size: int) -> FloatArray:
        """See `Backend.embed`."""
        texts = clean_texts(texts, self.space.text.text_cleaning)
        vectors = np.empty((len(texts), self.space.text.width), np.float32)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # little padding
        for start in range(0, len(texts), batch_size):
            rows = order[start : start + batch_size]
            vectors[rows] = self._embed([texts[row] for row in rows])
        return vectors

    def _embed(self, texts: list[str]) -> FloatArray:
        tokens = token_inputs(self._tokenizer, texts)
        inputs = {node.name: tokens[node.name] for node in self._tower.get_inputs()}
        vectors: FloatArray = self._tower.run(None, inputs)[0]
        return vectors

    def encode(self, texts: list[str], *, strength: float, batch_size: int) -> FloatArray:
        """See `Backend.encode`."""
        embedded = self.embed(texts, batch_size=batch_size)
        vectors = np.empty((len(texts), self.space.video.width), np.float32)
        for start in range(0, len(texts), batch_size):
            rows = slice(start, start + batch_size)
            vectors[rows] = unit(self.adapt(embedded[rows], strength=strength))
        return vectors

    def adapt(self, vectors: FloatArray, *, strength: float) -> FloatArray:
        """See `Backend.adapt`."""
        check_vectors(vectors, self.space.text.width)
        if strength == 0 or self._adapter is None or not len(vectors):
            return vectors
        check_directions(vectors)
        inputs = {"vectors": vectors, "strength": np.array([strength], np.float32)}
        adapted: FloatArray = self._adapter.run(None, inputs)[0]
        return adapted

    def trajectory(self, vectors: FloatArray) -> FloatArray:
        """See `Backend.trajectory`."""
        raise InputError('an exported adapter shows no trajectory; load it with backend="torch".')


def token_inputs(tokenizer: Tokenizer, texts: list[str]) -> dict[str, NDArray[np.int64]]:
    """Cut and pad texts: `input_ids` and `attention_mask`, of which a text tower takes what it needs, (n, l)."""
    encoded = tokenizer.encode_batch(texts)
    return {
        "input_ids": np.array([encoding.ids for encoding in encoded], np.int64),
        "attention_mask": np.array([encoding.attention_mask for encoding in encoded], np.int64),
    }


def open_session(path: Path, threads: int) -> InferenceSession:
    """Open an ONNX file on the CPU; with 0 threads ONNX Runtime decides how many.

    Raises:
        ArtifactError: ONNX Runtime cannot open the file.
        MissingExtraError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", None, 'backend="onnx"') from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # A thread that spins while it waits for work takes the CPU from those that have some.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of many classes, whose base is Exception
        raise ArtifactError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot open it ({error}). Export the adapter again."
        ) from None


def _threads() -> int:
    """Return the threads that OMP_NUM_THREADS asks for, of nested levels (`2,1`) the outer one; 0 for none."""
    outer = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(outer) if outer.isdecimal() else 0


def _read(folder: Path, checksum: str, width: int) -> OnnxConfig:
    path = folder / ONNX / CONFIG
    if not is_exported(folder):
        raise ArtifactError(
            f"{folder}: holds no ONNX form of the adapter. Write one with: "
            f"dits-adapter export {folder} --out FOLDER"
        )
    try:
        config = validated(OnnxConfig, path.read_bytes())
    except InputError as error:
        raise ArtifactError(f"{path}: is invalid, or of another release; {error}") from None
    if len(config.probes[0]) != width:
        raise ArtifactError(f"{path}: has vectors of width {len(config.probes[0])}; its adapter has {width}.")
    if config.artifact != checksum:
        raise ArtifactError(f"{path.parent}: was exported from another adapter than lies here. Export it again.")
    return config
