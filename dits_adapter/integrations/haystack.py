"""Haystack components that search videos: `pip install "dits-adapter[haystack]"`."""

from __future__ import annotations

from typing import Any

from dits_adapter.answers import Answer
from dits_adapter.encoder import DITSQueryEncoder
from dits_adapter.errors import InputError, MissingExtraError
from dits_adapter.integrations._documents import Retrieval, content, metadata
from dits_adapter.search import VideoSearch, check_encoder_options
from dits_adapter.stores.requests import VideoFilter

try:
    from haystack import Document, component, default_from_dict, default_to_dict
except ImportError:
    raise MissingExtraError("haystack-ai", "haystack", "the Haystack components") from None

__all__ = ["DITSTextEmbedder", "VideoRetriever"]


@component
class DITSTextEmbedder:
    """Text embedder that embeds a query on the video side.

    Args:
        model: folder, bundled name or hub id of an adapter.
        strength: movement of queries, 0 (plain CLIP) to 1.
        encoder_options: further options of `DITSQueryEncoder.from_pretrained`, such as `{"backend": "onnx"}`.

    Raises:
        InputError: an unknown option, or `strength` among the further ones.
    """

    def __init__(self, model: str, strength: float = 1.0, encoder_options: dict[str, Any] | None = None) -> None:
        self.model = model
        self.strength = strength
        self.encoder_options = dict(encoder_options or {})
        check_encoder_options(self.encoder_options)
        if "strength" in self.encoder_options:
            raise InputError("encoder_options has 'strength', which the component has an argument for.")
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
    """Retriever of the videos that a text describes, from any `VideoStore`.

    Args:
        search: the collection and the encoder of its queries, or the fields of `VideoSearch.to_dict`.
        top_k: number of videos.
        filters: condition on the videos: a `VideoFilter`, its fields in a dictionary (`{"words": "beach"}`), or a
            filter of the database's own.
        min_probability: least probability that a video is the right one; others are left out.
        min_probability_of_any: least probability that any of the ten best hits is right; below it there are no
            documents.
        search_options: further fields of `SearchRequest`, such as `{"per_video": 3}`.

    Raises:
        InputError: an option outside its range.
    """

    def __init__(
        self,
        search: VideoSearch | dict[str, Any],
        top_k: int = 10,
        filters: VideoFilter | dict[str, Any] | Any = None,
        min_probability: float | None = None,
        min_probability_of_any: float | None = None,
        search_options: dict[str, Any] | None = None,
    ) -> None:
        self._retrieval = Retrieval(
            search=VideoSearch.from_dict(search) if isinstance(search, dict) else search,
            limit=top_k,
            filter=filters,
            min_probability=min_probability,
            min_probability_of_any=min_probability_of_any,
            search_options=search_options or {},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments, as Haystack saves components; never a password.

        Raises:
            InputError: a search or an option that cannot be saved.
        """
        fields = self._retrieval.to_dict()
        fields["filters"] = fields.pop("filter")
        data: dict[str, Any] = default_to_dict(self, top_k=self._retrieval.limit, **fields)
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> VideoRetriever:
        """Return the component that `to_dict` described."""
        retriever: VideoRetriever = default_from_dict(cls, data)
        return retriever

    def warm_up(self) -> None:
        """Check the collection and load the text encoder."""
        self._retrieval.search.load()

    @component.output_types(documents=list[Document], probability_of_any=float | None)
    def run(self, query: str, top_k: int | None = None, filters: Any = None) -> dict[str, Any]:
        """Search.

        Args:
            query: the text.
            top_k, filters: in the place of the retriever's own.

        Returns:
            `documents`: the content of each is the video's title, or else its path; `meta` has the path, the
            seconds (`start`, `end`, `timestamp`), the `probability` and what the collection keeps.
            `probability_of_any`: see `Answer`.
        """
        return _outputs(self._retrieval.answer(query, top_k, filters))

    @component.output_types(documents=list[Document], probability_of_any=float | None)
    async def run_async(self, query: str, top_k: int | None = None, filters: Any = None) -> dict[str, Any]:
        """Search in a thread, as `run`."""
        return _outputs(await self._retrieval.answer_async(query, top_k, filters))


def _outputs(answer: Answer) -> dict[str, Any]:
    documents = [
        Document(id=str(match.hit.id), content=content(match), meta=metadata(match, answer), score=match.hit.score)
        for match in answer.matches
    ]
    return {"documents": documents, "probability_of_any": answer.probability_of_any}
