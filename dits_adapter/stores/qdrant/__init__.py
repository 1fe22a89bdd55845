"""Qdrant: a server, a folder (Qdrant Edge) or memory."""

from dits_adapter.errors import MissingExtraError

try:
    import qdrant_client  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError("qdrant-client", "qdrant", "a collection in Qdrant") from error

__all__: list[str] = []
