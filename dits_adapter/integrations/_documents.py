"""Refusal of texts as documents among the videos."""

from __future__ import annotations

from dits_adapter.errors import InputError

__all__ = ["no_documents"]


def no_documents(method: str) -> InputError:
    """Return the refusal to embed texts as documents.

    Such a text would lie on the other side of the modality gap than the videos and the adapted queries, and would
    rank wrongly without an error.

    Args:
        method: the method that was called, as users of the framework know it.
    """
    return InputError(
        f"{method} got texts to store, but the documents of a DITS index are videos; store them with "
        "dits_adapter.ingest or `dits-adapter ingest`. Keep texts in a collection of their own, embedded by "
        "DITSQueryEncoder.encode_document (plain CLIP) or by a text model."
    )
