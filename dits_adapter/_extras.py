"""Layers of an installation: the extra of each optional package, and the error where a package is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from dits_adapter.errors import MissingExtraError

__all__ = ["PACKAGES", "name_missing_extra", "require_modules"]

PACKAGES = {
    "PIL": ("pillow", "torch"),
    "accelerate": ("accelerate", "joint"),
    "anyio": ("fastapi", "serve"),
    "av": ("av", "video"),
    "charset_normalizer": ("charset-normalizer", "video"),
    "chromadb": ("chromadb", "chroma"),
    "decord": ("decord2", "video"),
    "fastapi": ("fastapi", "serve"),
    "fastembed": ("fastembed", "fastembed"),
    "ftfy": ("ftfy", "cleaning"),
    "grpc": ("qdrant-client", "qdrant"),
    "haystack": ("haystack-ai", "haystack"),
    "httpx": ("qdrant-client", "qdrant"),
    "lancedb": ("lancedb", "lancedb"),
    "langchain_core": ("langchain-core", "langchain"),
    "llama_index": ("llama-index-core", "llama-index"),
    "matplotlib": ("matplotlib", "figures"),
    "mcp": ("mcp", "mcp"),
    "milvus_lite": ("milvus-lite", "milvus-lite"),
    "onnx": ("onnx", "export"),
    "onnxscript": ("onnxscript", "export"),
    "open_clip": ("open_clip_torch", "open-clip"),
    "pgvector": ("pgvector", "pgvector"),
    "prometheus_client": ("prometheus-client", "serve"),
    "psycopg": ("psycopg", "pgvector"),
    "pymilvus": ("pymilvus", "milvus"),
    "pysubs2": ("pysubs2", "video"),
    "pyarrow": ("pyarrow", "parquet"),
    "qdrant_client": ("qdrant-client", "qdrant"),
    "qdrant_edge": ("qdrant-edge-py", "qdrant"),
    "safetensors": ("safetensors", "torch"),
    "scipy": ("scipy", "training"),
    "sentencepiece": ("sentencepiece", "sentencepiece"),
    "sentence_transformers": ("sentence-transformers", "torch"),
    "shtab": ("shtab", "completion"),
    "sklearn": ("scikit-learn", "training"),
    "starlette": ("fastapi", "serve"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "torch": ("torch", "torch"),
    "torchcodec": ("torchcodec", "torchcodec"),
    "torchvision": ("torchvision", "captions"),
    "transformers": ("transformers", "torch"),
    "uvicorn": ("uvicorn", "serve"),
    "yaml": ("pyyaml", "training"),
}
"""Package and extra of each module that an installation may lack."""


def require_modules(purpose: str, *modules: str) -> None:
    """Refuse at once what would fail for a missing package at its end; nothing is imported.

    Args:
        purpose: subject of the sentence, what needs the packages.
        modules: keys of `PACKAGES`.

    Raises:
        MissingExtraError: one of the packages is not installed.
    """
    for module in modules:
        if find_spec(module) is None:
            raise MissingExtraError(*PACKAGES[module], purpose)


@contextmanager
def name_missing_extra(purpose: str) -> Iterator[None]:
    """Translate the failed import of an optional package, here or further below, to a `MissingExtraError`.

    Args:
        purpose: subject of the sentence, what needs the package.

    Raises:
        MissingExtraError: a package of `PACKAGES` is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = PACKAGES.get((error.name or "").partition(".")[0])
        if missing is None:
            raise
        raise MissingExtraError(*missing, purpose) from None
