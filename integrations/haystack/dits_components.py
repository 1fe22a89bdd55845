"""Haystack components that search videos with DITS: copy them into your project."""

from __future__ import annotations

from typing import Any

from haystack import Document, component

from dits_adapter import DITSQueryEncoder, QdrantStore


@component
class DITSTextEmbedder:
    """Embeds a query on the video side.

    Args:
        model: folder or hub id of an adapter.
        strength: how far queries move, 0 (plain CLIP) to 1.
    """

    def __init__(self, model: str, strength: float = 1.0) -> None:
        self.model = model
        self.strength = strength
        self._encoder: DITSQueryEncoder | None = None

    def warm_up(self) -> None:
        """Load the adapter; CLIP follows with the first text."""
        if self._encoder is None:
            self._encoder = DITSQueryEncoder.from_pretrained(self.model, strength=self.strength)

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        """Embed one text: `embedding` is a unit vector of d floats."""
        self.warm_up()
        assert self._encoder is not None
        return {"embedding": self._encoder.encode_query(text).tolist()}


@component
class VideoRetriever:
    """Finds the segments nearest to a query in a collection made by `dits-adapter ingest`.

    Args:
        model: the text embedder's; a collection of another embedding space is refused.
        location: a server's URL (key: QDRANT_API_KEY in the environment), or a folder.
        collection: its name.
        top_k: how many videos.
    """

    def __init__(self, model: str, location: str, collection: str = "videos", top_k: int = 10) -> None:
        self.model = model
        self.location = location
        self.collection = collection
        self.top_k = top_k
        self._store: QdrantStore | None = None

    def warm_up(self) -> None:
        """Connect to the store and check the collection's embedding space."""
        if self._store is None:
            space = DITSQueryEncoder.from_pretrained(self.model).space
            self._store = QdrantStore(self.location, self.collection, space=space)
            self._store.open()

    @component.output_types(documents=list[Document])
    def run(self, query_embedding: list[float], top_k: int | None = None) -> dict[str, Any]:
        """Search: each document's content is a video's path, its meta say which seconds of it."""
        self.warm_up()
        assert self._store is not None
        hits = self._store.search(query_embedding, limit=top_k or self.top_k)
        return {
            "documents": [
                Document(
                    content=hit.path,
                    meta={key: getattr(hit, key) for key in ("video_id", "start", "end", "timestamp")},
                    score=hit.score,
                )
                for hit in hits
            ]
        }
