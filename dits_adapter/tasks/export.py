"""Export of an adapter for serving without torch."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from dits_adapter._wording import validated
from dits_adapter.artifact._config import CONFIG, ONNX
from dits_adapter.artifact._find import require_free
from dits_adapter.backends._onnx_runtime import ADAPTER, TOWER, OnnxConfig
from dits_adapter.data.pairs import Pairs, load_pairs
from dits_adapter.encoder import DITSQueryEncoder

__all__ = ["ExportReport", "export_artifact"]


@dataclass(frozen=True)
class ExportReport:
    """Report of an export.

    Attributes:
        written: folder of the artifact with its ONNX form.
        sizes: bytes of `adapter.onnx` and `text.onnx`, as far as they were written: an adapter that moves nothing
            has no graph, and an encoder that was declared no text tower.
        quality: retrieval with float32 and with int8 weights on held-out pairs; empty for float32.
    """

    written: Path
    sizes: dict[str, int]
    quality: dict[str, Any]

    def __str__(self) -> str:
        lines = [f"{name}: {size / 1e6:.1f} MB" for name, size in self.sizes.items()]
        if TOWER not in self.sizes:
            lines.append("no text tower was exported: embed texts elsewhere, and search with their vectors")
        if self.quality:
            lines.append(
                "int8: R@1 {r1_int8:.1f}, with float32 {r1_float32:.1f}, on {queries} held-out queries; cosine to "
                "float32 {cosine_mean:.5f}, at least {cosine_lowest:.5f}".format(**self.quality)
            )
        return "\n".join([*lines, f"written to {self.written}"])


def export_artifact(
    adapter: str | PathLike[str] | DITSQueryEncoder,
    out: str | PathLike[str],
    *,
    encoder: str | PathLike[str] | None = None,
    int8: str | PathLike[str] | Pairs | None = None,
) -> ExportReport:
    """Write an artifact with its ONNX form and that of its text tower, which run without torch.

    `DITSQueryEncoder.from_pretrained(out)` then runs on ONNX Runtime.

    Args:
        adapter: folder, bundled name or hub id of a trained adapter, or its encoder on the backend `torch`.
        out: folder of the artifact; an artifact in it is replaced.
        encoder: folder or hub id of its encoder, if the artifact does not lead to it.
        int8: held-out pairs, or their cache: weights of the adapter become int8, calibrated on one half of them
            and accepted on the other.

    Raises:
        ArtifactError: the adapter or its encoder cannot be loaded, or `out` holds something else than an artifact.
        DITSError: int8 weights cost too much; nothing is written.
        InputError: an adapter or an encoder of a kind that is not exported, or int8 for a linear adapter.
        MissingExtraError: onnx or onnxscript is not installed.
        SpaceMismatchError: pairs of another space.
    """
    require_free(Path(out).absolute())
    pairs = load_pairs(int8) if isinstance(int8, str | PathLike) else int8
    if not isinstance(adapter, DITSQueryEncoder):
        adapter = DITSQueryEncoder.from_pretrained(adapter, backend="torch", encoder=encoder, device="cpu")
    written = adapter.export_onnx(out, int8=pairs)
    files = written / ONNX
    sizes = {name: sum(file.stat().st_size for file in files.glob(f"{name}*")) for name in (ADAPTER, TOWER)}
    quality = validated(OnnxConfig, (files / CONFIG).read_bytes()).quality
    return ExportReport(written, {name: size for name, size in sizes.items() if size}, quality)
