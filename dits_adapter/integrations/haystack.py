"""Haystack components that search videos: `pip install "dits-adapter[haystack]"`."""

from __future__ import annotations

from typing import Any

from dits_adapter.encoder import DITSQueryEncoder
from dits_adapter.errors import MissingExtraError
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.open import open_store

try:
    from haystack import Document, component, default_from_dict, default_to_dict
except ImportError:
    raise MissingExtraError("haystack-ai", "haystack", "the Haystack components") from None

__all__ = ["DITSTextEmbedder", "VideoRetriever"]

_META = ("video_id", "start", "end", "timestamp")


@component
class DITSTextEmbedder:
    """Text embedder that embeds a query on the video side.

    Args:
        model: folder, bundled name or hub id of an adapter.
        strength: movement of queries, 0 (plain CLIP) to 1.
        encoder_options: further options of `DITSQueryEncoder.from_pretrained`, such as `{"backend": "onnx"}`.
    """

    def __init__(self, model: str, strength: float = 1.0, encoder_options: dict[str, Any] | None = None) -> None:
        self.model = model
        self.strength = strength
        self.encoder_options = dict(encoder_options or {})
        self._encoder: DITSQueryEncoder | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments, as Haystack saves components."""
        data: dict[str, Any] = default_to_dict(
            self, model=self.model, strength=self.strength, encoder_options=self.encoder_options
        )
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DITSTextEmbedder:
        """Return the component that `to_dict` described."""
        embedder: DITSTextEmbedder = default_from_dict(cls, data)
        return embedder

    def warm_up(self) -> None:
        """Load the adapter; CLIP follows with the first text."""
        if self._encoder is None:
            options = {**self.encoder_options, "strength": self.strength}
            self._encoder = DITSQueryEncoder.from_pretrained(self.model, **options)

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        """Embed one text: `embedding` is a unit vector of d floats."""
        self.warm_up()
        assert self._encoder is not None
        return {"embedding": self._encoder.encode_query(text).tolist()}


@component
class VideoRetriever:
    """Retriever of the segments nearest to a query in a collection that `dits-adapter ingest` made.

    Args:
        model: the text embedder's; a collection of another embedding space is refused.
        location: address of the store, as `open_store` takes it: a server's URL (key: QDRANT_API_KEY in the
            environment), a folder, or that of another database.
        collection: name of the collection.
        top_k: number of videos.
        store_options: further options of `open_store`, such as `{"tenant": "acme"}`.
    """

    def __init__(
        self,
        model: str,
        location: str,
        collection: str = "videos",
        top_k: int = 10,
        store_options: dict[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.location = location
        self.collection = collection
        self.top_k = top_k
        self.store_options = dict(store_options or {})
        self._store: VideoStore | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments, as Haystack saves components."""
        data: dict[str, Any] = default_to_dict(
            self,
            model=self.model,
            location=self.location,
            collection=self.collection,
            top_k=self.top_k,
            store_options=self.store_options,
        )
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> VideoRetriever:
        """Return the component that `to_dict` described."""
        retriever: VideoRetriever = default_from_dict(cls, data)
        return retriever

    def warm_up(self) -> None:
        """Open the store and check the collection's embedding space."""
        if self._store is None:
            space = DITSQueryEncoder.from_pretrained(self.model).space
            self._store = open_store(self.location, self.collection, space=space, **self.store_options)
            self._store.open()

    @component.output_types(documents=list[Document])
    def run(self, query_embedding: list[float], top_k: int | None = None) -> dict[str, Any]:
        """Search: the content of each document is a video's path, its meta the seconds of the segment."""
        self.warm_up()
        assert self._store is not None
        hits = self._store.search(query_embedding, limit=top_k or self.top_k)
        return {
            "documents": [
                Document(content=hit.path, meta={key: getattr(hit, key) for key in _META}, score=hit.score)
                for hit in hits
            ]
        }
