"""DITS inside the tools that its users already have: queries are adapted, texts are never taken for documents."""

from __future__ import annotations

from dits_adapter.errors import InputError


def no_documents(method: str) -> InputError:
    """Return the refusal to embed texts that are to be stored among the videos.

    Such a text would lie on the other side of the modality gap than the videos and the adapted queries: it would
    rank wrongly, and nobody would be told.

    Args:
        method: what was called, as its user knows it.
    """
    return InputError(
        f"{method} got texts to store, but the documents of a DITS index are videos; store them with "
        "dits_adapter.ingest or `dits-adapter ingest`. Keep texts in a collection of their own, embedded by "
        "DITSQueryEncoder.encode_document (plain CLIP) or by a text model."
    )
