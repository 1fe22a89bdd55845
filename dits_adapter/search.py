"""Search of a store by texts: an encoder and a store together, hits with probabilities, and where nothing fits."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from os import PathLike, fspath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Self, Unpack

from dits_adapter._reprs import short_repr
from dits_adapter._wording import without_password
from dits_adapter.answers import Answer, Judge, calibration_of
from dits_adapter.encoder import DITSQueryEncoder, check_queries
from dits_adapter.errors import InputError
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.bias import ScoreBias
from dits_adapter.stores.open import open_store
from dits_adapter.stores.requests import SearchOptions, SearchRequest, from_keywords
from dits_adapter.vectors import FloatArray, unit

__all__ = ["VideoSearch", "check_encoder_options", "check_probabilities", "plain"]

T = TypeVar("T")

_FRESH_SECONDS = 5.0
"""Seconds for which the number of videos, on which probabilities depend a little, is used again."""


class VideoSearch:
    """Search of a collection by texts; safe to use from several threads, and a context manager.

    Nothing is loaded or opened before the first search, or `load`. A score bias that the collection gets later is
    seen by a new search. Copied and pickled, a search travels as the names that it was made of (`to_dict`).

    Args:
        model: folder, bundled name or hub id of an adapter, or an encoder.
        store: address of a store, as `open_store` takes it, or a store, which stays open.
        collection: name of the collection at an address.
        encoder_options: options of `DITSQueryEncoder.from_pretrained`, with the name of an adapter.
        store_options: options of `open_store`, such as `{"tenant": "acme"}`, with an address.

    Raises:
        InputError: something else, options beside the object that they are for, or an unknown one of an encoder.
    """

    def __init__(
        self,
        model: str | PathLike[str] | DITSQueryEncoder,
        store: str | PathLike[str] | VideoStore,
        collection: str | None = None,
        *,
        encoder_options: Mapping[str, Any] | None = None,
        store_options: Mapping[str, Any] | None = None,
    ) -> None:
        of_encoder, of_store = dict(encoder_options or {}), dict(store_options or {})
        if isinstance(model, DITSQueryEncoder) and of_encoder:
            raise InputError("encoder_options are for the name of an adapter; give them to the encoder itself.")
        if isinstance(store, VideoStore) and (of_store or collection):
            raise InputError("collection and store_options are for an address; give them to the store itself.")
        check_encoder_options(of_encoder)
        if "space" in of_store:
            raise InputError("store_options has 'space', which is that of the encoder; leave it out.")
        self._encoder = model if isinstance(model, DITSQueryEncoder) else None
        self._store = store if isinstance(store, VideoStore) else None
        self._model = None if isinstance(model, DITSQueryEncoder) else _name(model, "model", "an encoder")
        self._address = None if isinstance(store, VideoStore) else _name(store, "store", "a store")
        self._name = collection or "videos"
        self._encoder_options, self._store_options = of_encoder, of_store
        self._lock = threading.RLock()
        self._known: _Collection | None = None
        self._counted = (0, -math.inf)

    def __repr__(self) -> str:
        store = self._store if self._address is None else without_password(self._address)
        named = {} if self._address is None else {"collection": self._name}
        return short_repr(self, self._model or self._encoder, store, **named)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_dict, (self.to_dict(),)

    def close(self) -> None:
        """Close the store, unless it was given as an object."""
        with self._lock:
            if self._address is not None and self._store is not None:
                self._store.close()
                self._store = None
            self._known, self._counted = None, (0, -math.inf)

    def to_dict(self) -> dict[str, Any]:
        """Return the names and options of encoder and store, ready for JSON, and never a password.

        Where it is read again the store's password comes from the environment (docs/stores.md).

        Raises:
            InputError: the store was given as an object, the encoder is none that `from_pretrained` made, or an
                option is no JSON.
        """
        if self._address is None:
            raise InputError("a search around a store cannot be saved; make it of the store's address instead.")
        model, options = self._model, self._encoder_options
        if model is None and self._encoder is not None:
            model, options = self._encoder.name_or_path, self._encoder.options
        if model is None:
            raise InputError("a search around an encoder without a name cannot be saved; name its adapter.")
        address = without_password(self._address)
        if "=…" in address:
            raise InputError(f"the address {address} has a key among its parameters, which is not saved.")
        return {
            "model": model,
            "store": address,
            "collection": self._name,
            "encoder_options": plain(options, "encoder_options"),
            "store_options": plain(self._store_options, "store_options"),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Return the search that `to_dict` described; fields are those of the constructor.

        Raises:
            InputError: an unknown or a missing field.
        """
        known = list(inspect.signature(cls).parameters)
        if unknown := sorted(fields.keys() - set(known)):
            raise InputError(f"a search has no field {unknown[0]!r}; its fields are {', '.join(known)}.")
        if missing := {"model", "store"} - fields.keys():
            raise InputError(f"a search needs a {min(missing)}.")
        return cls(**fields)

    @property
    def encoder(self) -> DITSQueryEncoder:
        """The encoder of the queries."""
        with self._lock:
            if self._encoder is None:
                assert self._model is not None
                self._encoder = DITSQueryEncoder.from_pretrained(self._model, **self._encoder_options)
            return self._encoder

    @property
    def store(self) -> VideoStore:
        """The store that is searched."""
        with self._lock:
            if self._store is None:
                assert self._address is not None
                options = {"space": self.encoder.space, **self._store_options}
                self._store = open_store(self._address, self._name, **options)
            return self._store

    def load(self) -> None:
        """Check the collection and load the text encoder now, and not with the first search.

        Raises:
            StoreError, SpaceMismatchError, ArtifactError: see `VideoStore.open` and `DITSQueryEncoder.load`.
        """
        self._collection().encoder.load()

    def search(
        self,
        text: str,
        request: SearchRequest | None = None,
        *,
        min_probability: float | None = None,
        min_probability_of_any: float | None = None,
        answerable: float = 0.5,
        **options: Unpack[SearchOptions],
    ) -> Answer:
        """Find the videos that a text describes.

        A collection's score bias is taken as `DITSQueryEncoder.beside` says, unless the request has a weight. With
        `lanes=("seen", "said")` the words of the text are looked for in what is said as well; of hits in fused
        lanes no probability is known.

        Args:
            text: the query.
            request: options as one object; or give its fields as keyword arguments (`limit=5`).
            min_probability: least probability that a hit's video is the right one; others are left out.
            min_probability_of_any: least probability that any of the ten best hits is right; below it nothing in
                the collection is taken to fit, and the answer has no matches.
            answerable: share of all queries that have their video in the collection.
            options: fields of `SearchRequest`.

        Raises:
            InputError: no text, an option outside its range, or a least probability where none is known.
            StoreError, SpaceMismatchError: see `VideoStore.search`.
        """
        request = from_keywords(SearchRequest, request, options)
        least = {"min_probability": min_probability, "min_probability_of_any": min_probability_of_any}
        check_probabilities(**least, answerable=answerable)
        if not isinstance(text, str):
            raise InputError(f"the query is a {type(text).__name__}; it is one text.")
        check_queries(text)
        if request.beyond_seen and request.texts is None:
            request = replace(request, texts=(text,))
        return self._judged(lambda encoder: encoder.encode_query([text]), request, answerable, least)[0]

    def search_vectors(
        self,
        vectors: ArrayLike,
        request: SearchRequest | None = None,
        *,
        min_probability: float | None = None,
        min_probability_of_any: float | None = None,
        answerable: float = 0.5,
        **options: Unpack[SearchOptions],
    ) -> list[Answer]:
        """Find the videos of texts that were embedded elsewhere; the text encoder is not loaded.

        Args:
            vectors: text embeddings as the adapter's encoder gives them (`DITSQueryEncoder.embed`), (n, d).
            request, min_probability, min_probability_of_any, answerable, options: as for `search`. Lanes beside
                what is seen look for the request's `texts`, one a vector.

        Returns:
            An answer a vector.

        Raises:
            InputError: another shape, a vector that is NaN or zero, other lanes without texts; and as `search`.
            StoreError, SpaceMismatchError: see `VideoStore.search`.
        """
        request = from_keywords(SearchRequest, request, options)
        least = {"min_probability": min_probability, "min_probability_of_any": min_probability_of_any}
        check_probabilities(**least, answerable=answerable)
        array = np.asarray(vectors, np.float32)
        if array.ndim != 2:
            raise InputError(f"the vectors have the shape {array.shape}; expected (n, d), a row a query.")
        return self._judged(lambda encoder: unit(encoder.adapt(array)), request, answerable, least)

    def _judged(
        self,
        encode: Callable[[DITSQueryEncoder], FloatArray],
        request: SearchRequest,
        answerable: float,
        least: Mapping[str, float | None],
    ) -> list[Answer]:
        """Search with the queries, unit vectors (n, d), that the encoder beside the score bias gives."""
        min_probability, min_of_any = least["min_probability"], least["min_probability_of_any"]
        collection = self._collection()
        encoder = self.encoder
        if request.bias is None:
            encoder, request = collection.beside(request)
        calibration = calibration_of(encoder.calibration, self.store, collection.bias, request)
        wanted = [name for name, value in least.items() if value is not None]
        if wanted and isinstance(calibration, str):
            raise InputError(f"{wanted[0]}: {calibration}")
        if min_of_any is not None and request.offset:
            raise InputError("min_probability_of_any is of the best hits; leave out offset.")
        found = self.store.search_batch(encode(encoder), request)
        judge = None
        if not isinstance(calibration, str):
            judge = Judge(calibration, self._count_videos(), min_probability, min_of_any, answerable)
        return [Answer.of(hits, judge, first=not request.offset) for hits in found]

    def search_like(
        self, segment: str | int, request: SearchRequest | None = None, **options: Unpack[SearchOptions]
    ) -> Answer:
        """Find what is like a stored segment; see `VideoStore.search_like`. Probabilities are not known."""
        self._collection()
        return Answer.of(self.store.search_like(segment, request, **options), None)

    def search_image(
        self,
        image: bytes | NDArray[np.uint8],
        request: SearchRequest | None = None,
        **options: Unpack[SearchOptions],
    ) -> Answer:
        """Find what is like a picture, without adapter and, unless `bias` has a weight, without score bias.

        Probabilities are not known.

        Args:
            image: as `DITSQueryEncoder.encode_image` takes it.
            request, options: as for `search`.

        Raises:
            InputError, SpaceMismatchError: as `DITSQueryEncoder.encode_image`; or other lanes than what is seen.
            StoreError: see `VideoStore.search`.
        """
        request = from_keywords(SearchRequest, request, options)
        if request.beyond_seen:
            raise InputError("a picture is looked for in what is seen; leave out lanes.")
        self._collection()
        request = replace(request, bias=request.bias or 0.0)
        return Answer.of(self.store.search(self.encoder.encode_image(image), request), None)

    def no_probabilities(self) -> str | None:
        """Return the reason why matches have no probabilities, a sentence; None where they have them.

        Raises:
            StoreError, SpaceMismatchError: see `VideoStore.open`.
        """
        collection = self._collection()
        encoder, request = collection.beside(SearchRequest())
        calibration = calibration_of(encoder.calibration, self.store, collection.bias, request)
        return calibration if isinstance(calibration, str) else None

    async def search_async(self, text: str, request: SearchRequest | None = None, **options: Any) -> Answer:
        """Search in a thread, so that others need not wait; arguments, answer and errors are those of `search`."""
        return await asyncio.to_thread(self.search, text, request, **options)

    def _collection(self) -> _Collection:
        """Check the collection, once, as stores do."""
        with self._lock:
            if self._known is None:
                self._known = _Collection.read(self.store, self.encoder)
            return self._known

    def _count_videos(self) -> int:
        """Return the number of videos, as it was some seconds ago."""
        with self._lock:
            count, counted_at = self._counted
            if time.monotonic() - counted_at > _FRESH_SECONDS:
                count = self.store.count_videos()
                self._counted = count, time.monotonic()
            return count


def _name(value: object, what: str, otherwise: str) -> str:
    if not isinstance(value, str | PathLike):
        raise InputError(f"{what} is a {type(value).__name__}; it is a name, a path or {otherwise}.")
    return fspath(value)


def check_encoder_options(options: Mapping[str, Any]) -> None:
    """Refuse what is no option of `DITSQueryEncoder.from_pretrained`.

    Raises:
        InputError: naming it.
    """
    known = list(inspect.signature(DITSQueryEncoder.from_pretrained).parameters)[1:]
    if unknown := sorted(options.keys() - set(known)):
        raise InputError(f"an encoder has no option {unknown[0]!r}; its options are {', '.join(known)}.")


def check_probabilities(**values: float | None) -> None:
    """Refuse what is no probability; None stands for one that is not asked for.

    Raises:
        InputError: naming it.
    """
    for name, value in values.items():
        if value is not None and not (isinstance(value, Real) and 0 < value < 1):
            raise InputError(f"{name} is {value!r}; it is a number between 0 and 1.")


def plain(value: T, name: str) -> T:
    """Return a value that can be saved as JSON.

    Raises:
        InputError: naming it by `name`.
    """
    try:
        json.dumps(value)
    except TypeError:
        raise InputError(f"{name} is {value!r}, which cannot be saved as JSON.") from None
    return value


@dataclass(frozen=True)
class _Collection:
    """Facts of a collection that a search is made by.

    Attributes:
        bias: record of the score bias; None where none is in use.
        encoder, weight: encoder of queries beside the bias, and its weight for them (`DITSQueryEncoder.beside`).
    """

    bias: ScoreBias | None
    encoder: DITSQueryEncoder
    weight: float

    @classmethod
    def read(cls, store: VideoStore, encoder: DITSQueryEncoder) -> _Collection:
        store.open()
        if store.space is None:
            encoder.check(store)
        metadata = store.metadata()
        bias = None if metadata is None else metadata.bias_in_use
        beside, weight = (encoder, 0.0) if bias is None else encoder.beside(bias)
        return cls(bias, beside, weight)

    def beside(self, request: SearchRequest) -> tuple[DITSQueryEncoder, SearchRequest]:
        """Return the encoder and the request that take the score bias together."""
        own = self.bias is None or self.weight == self.bias.weight
        return self.encoder, request if own else replace(request, bias=self.weight)
