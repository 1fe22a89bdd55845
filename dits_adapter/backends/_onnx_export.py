"""Export of an artifact to ONNX: text tower, tokenizer and adapter as `backend="onnx"` runs them.

It lies in the artifact, in `onnx/`, and is bound to it by the checksum: an adapter that was trained anew needs a
new export. `OnnxBackend` has the checks of loading.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import Self

from dits_adapter._files import sha256
from dits_adapter.adapters.base import Adapter, interpolate_on_sphere
from dits_adapter.artifact._config import CONFIG, ONNX, read_config
from dits_adapter.backends._onnx_runtime import (
    ADAPTER,
    TOKENIZER,
    TOWER,
    OnnxBackend,
    OnnxConfig,
    open_session,
    token_inputs,
)
from dits_adapter.backends._pytorch import TorchBackend
from dits_adapter.encoders.base import TextEncoder, TransformersEncoder
from dits_adapter.errors import DITSError, InputError, MissingExtraError
from dits_adapter.evaluation.metrics import DotProducts, RetrievalMetrics, ranks
from dits_adapter.sides import CANARY_TEXTS
from dits_adapter.space import EmbeddingSpace
from dits_adapter.vectors import FloatArray

__all__ = ["HeldOutPairs", "export", "export_adapter", "export_tower", "quantize"]

_COSINE = 0.9999
"""Least cosine of a float32 export to the trained adapter, on every machine that runs it."""

_INT8_COSINE = 0.99
"""Least cosine of an int8 export to the trained adapter, for every held-out query."""

_INT8_R1 = 0.5
"""Points of R@1 on held-out pairs that int8 weights may cost."""


class HeldOutPairs(Protocol):
    """Part of `dits_adapter.data.pairs.Pairs` that int8 weights are calibrated and accepted with.

    Attributes:
        space: the embedding space of the vectors.
        text: text embeddings, (n, d).
        video: unit video vectors, (m, d).
        labels: row in `video` of each text's video, (n,).
    """

    space: EmbeddingSpace
    labels: NDArray[np.int64]

    @property
    def text(self) -> FloatArray: ...
    @property
    def video(self) -> FloatArray: ...

    def __len__(self) -> int: ...

    def split(self, fraction: float, seed: int) -> tuple[Self, Self]:
        """Split the pairs at random by video: the larger part, and `fraction` of the videos."""


class _Query(nn.Module):
    """Module that computes `Adapter.adapt`: embeddings (n, d) and strength (1,) to unit vectors (n, d)."""

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.adapter = adapter

    def forward(self, vectors: Tensor, strength: Tensor) -> Tensor:
        adapted = F.normalize(self.adapter(vectors), dim=1)
        if self.adapter.text_width != self.adapter.width:
            return adapted + 0 * strength  # which stays an input
        return interpolate_on_sphere(F.normalize(vectors, dim=1), adapted, strength)


def export(backend: TorchBackend, folder: str | PathLike[str], *, int8: HeldOutPairs | None = None) -> Path:
    """Save an artifact with its ONNX form in `folder/onnx`; an artifact that is in the folder is replaced.

    Args:
        backend: adapter and encoder.
        folder: folder of the artifact.
        int8: held-out pairs of the same space. With them the adapter's matrices become int8 (`quantize`),
            calibrated on half of these texts; the other half decides whether that is accepted. A quarter of the
            bytes; the text tower stays float32. Probabilities stay those of the float32 adapter.

    Returns:
        The folder.

    Raises:
        MissingExtraError: `onnx` or `onnxscript` is not installed.
        InputError: an adapter of a kind that only serves for comparisons, an encoder of a family that cannot be
            exported, or int8 for a linear adapter.
        SpaceMismatchError: pairs of another space.
        DITSError: int8 weights cost more than 0.5 points of R@1, or a query falls below a cosine of 0.99.
        ArtifactError: the folder holds something else than an artifact.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401  (what torch.onnx needs; it brings onnx)
    except ImportError as error:
        raise MissingExtraError(error.name or "onnxscript", "export", "exporting to ONNX") from None
    artifact = backend.artifact
    if not artifact.adapter.exportable:
        raise InputError(f"an adapter of kind {artifact.adapter.kind} serves for comparisons and is not exported.")
    if int8 is not None:
        artifact.space.require(int8.space, mine="the adapter", theirs="the held-out pairs")
    with artifact.saving(folder) as fresh:
        files = fresh / ONNX
        files.mkdir()
        quality = {}
        if not artifact.adapter.is_plain:
            export_adapter(artifact.adapter, files / ADAPTER)
            if int8 is not None:
                test, calibration = int8.split(0.5, seed=0)
                quantize(files / ADAPTER, files / ADAPTER, calibration.text)
                quality = _accept(backend, files / ADAPTER, test)
        if _has_tower(backend):
            export_tower(backend.encoder, files)
            probes = backend.embed(list(CANARY_TEXTS), batch_size=len(CANARY_TEXTS))
        else:
            probes = artifact.space.text.probes
        adapted = backend.adapt(probes, strength=1.0)
        config = OnnxConfig(
            artifact=read_config(fresh).checksum,
            weights="int8" if quality else "float32",
            probes=tuple(map(tuple, probes.tolist())),
            adapted=tuple(map(tuple, adapted.tolist())),
            cosine=_INT8_COSINE if quality else _COSINE,
            quality=quality,
            sha256={file.name: sha256(file) for file in sorted(files.iterdir())},
        )
        (files / CONFIG).write_text(config.model_dump_json(indent=1) + "\n", "utf-8")
        _require_equal(fresh)
    return Path(folder).absolute()


def _require_equal(folder: Path) -> None:
    """Refuse an export that does not compute what the trained adapter and its encoder do."""
    written = OnnxBackend(folder)
    if not written.has_tower:
        return
    written.space.text.require(written.load(), mine="the adapter", theirs="the exported text tower")


def _has_tower(backend: TorchBackend) -> bool:
    """Tell whether the text tower is exported along: that of a declared encoder cannot be."""
    space = backend.space
    return not space.text.declared and (space.shared or isinstance(backend.encoder, TransformersEncoder))


def export_adapter(adapter: Adapter, path: Path) -> None:
    """Write an adapter as an ONNX graph: vectors (n, d) and strength (1,) to unit vectors (n, d)."""
    batch = torch.export.Dim("n")
    ready = _Query(copy.deepcopy(adapter).for_inference().cpu().float())
    example = (torch.randn(2, adapter.text_width), torch.ones(1))
    _export(ready, example, ({0: batch}, None), ["vectors", "strength"], path, external_data=False)


def export_tower(encoder: TextEncoder, files: Path) -> None:
    """Write an encoder's tokenizer and text tower, token ids (n, l) to embeddings (n, d), into a folder.

    Raises:
        InputError: the encoder is of a family that cannot be exported.
    """
    if not isinstance(encoder, TransformersEncoder):
        raise InputError(f"{encoder.name} is of an encoder family that cannot be exported.")
    module, tokenizer, limit, mask = encoder.text_tower()
    tokenizer.save(str(files / TOKENIZER))
    names = ["input_ids", "attention_mask"] if mask else ["input_ids"]
    tokens = token_inputs(tokenizer, list(CANARY_TEXTS))
    device = next(module.parameters()).device
    example = tuple(torch.from_numpy(tokens[name]).to(device) for name in names)
    axes = {0: torch.export.Dim("n")}
    if example[0].shape[1] < limit:  # else texts always are padded to the whole length
        axes[1] = torch.export.Dim("l", min=2, max=limit)
    _export(module, example, (axes,) * len(names), names, files / TOWER, external_data=True)


def _export(
    module: nn.Module,
    example: tuple[Tensor, ...],
    shapes: tuple[Any, ...],
    inputs: list[str],
    path: Path,
    *,
    external_data: bool,
) -> None:
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=inputs,
            output_names=["embedded"],
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with the paths of this machine
    program.save(path, external_data=external_data)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's notes about packages that are not needed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def quantize(path: Path, out: Path, calibration: FloatArray) -> None:
    """Write an exported adapter with int8 matrices, a scale for each output, and uint8 inputs of the matrices.

    Only matrices behind a LayerNorm or a GELU become int8, in DITS those that are read at every step. Embeddings
    themselves have components that dwarf the others, and maps that undo this: eight bits are not enough for them.

    The inputs' scales are fixed by the calibration: were they found anew for each batch, as dynamic quantization
    does, a query's vector would depend on what else is in its batch.

    Args:
        path: the float32 graph.
        out: path of the quantized graph; may be the same.
        calibration: text embeddings, (n, d).

    Raises:
        InputError: there is no such matrix, as in linear adapters.
    """
    import onnx
    import onnxruntime
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    nodes = onnx.load(path).graph.node
    scaled = {node.output[0] for node in nodes if node.op_type in ("LayerNormalization", "Gelu")}
    chosen = [node.name for node in nodes if node.op_type == "Gemm" and node.input[0] in scaled]
    if not chosen:
        raise InputError(
            "int8 weights are for DITS and the MLP; this adapter is one map, quick enough in float32."
        )

    class Texts(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(np.array_split(calibration, max(1, len(calibration) // 64)))

        def get_next(self) -> dict[str, FloatArray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"vectors": batch, "strength": np.ones(1, np.float32)}

    with _quiet():
        # Makes constants of the biases that each step has of its own; with others a matrix would run in float32.
        # A session does so in every ONNX Runtime; `quant_pre_process` fails in the last one for Python 3.10.
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(out)
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        quantize_static(
            out,
            out,
            Texts(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Gemm"],
            nodes_to_quantize=chosen,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
        )


def _accept(backend: TorchBackend, path: Path, pairs: HeldOutPairs) -> dict[str, Any]:
    """Refuse int8 weights whose retrieval on held-out pairs is worse by more than `_INT8_R1`."""
    exact = backend.adapt(pairs.text, strength=1.0)
    inputs = {"vectors": pairs.text, "strength": np.ones(1, np.float32)}
    quantized = open_session(path, threads=0).run(None, inputs)[0]
    before, after = (
        RetrievalMetrics.from_ranks(ranks(DotProducts(queries, pairs.video), pairs.labels)).r1
        for queries in (exact, quantized)
    )
    cosines = np.sum(exact * quantized, axis=1)
    lowest = float(cosines.min())
    if before - after > _INT8_R1 or not lowest >= _INT8_COSINE:
        raise DITSError(
            f"int8 weights take R@1 from {before:.1f} to {after:.1f} on {len(pairs)} held-out queries, and the "
            f"cosine to float32 goes down to {lowest:.4f}; accepted are {_INT8_R1} points less and a cosine of "
            f"{_INT8_COSINE}. Nothing was written. Export with float32 weights."
        )
    return {
        "queries": len(pairs),
        "r1_float32": before,
        "r1_int8": after,
        "cosine_lowest": lowest,
        "cosine_mean": float(cosines.mean()),
    }
