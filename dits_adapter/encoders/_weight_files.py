"""Weight files of a repository: one file of safetensors, or several and their index."""

from __future__ import annotations

from typing import Any

from dits_adapter._hub import Repository
from dits_adapter._user_files import read_json
from dits_adapter.errors import ArtifactError

__all__ = ["fetch_weights"]


def fetch_weights(repository: Repository, weights: str) -> bool:
    """Download a file of weights, or those that it is split into; False where there is neither.

    Args:
        repository: the repository.
        weights: name of the file; `{weights}.index.json` lists those that it is split into.

    Raises:
        ArtifactError: a damaged index, or a file that cannot be downloaded.
    """
    if repository.find(weights) is not None:
        return True
    index = repository.find(f"{weights}.index.json")
    if index is None:
        repository.require_known(weights)
        return False
    try:
        content: Any = read_json(index)
        shards = {str(file) for file in content["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{index}: is no index of weight files ({error!r}).") from None
    folder = weights.rpartition("/")[0]
    repository.fetch(f"{folder}/{shard}" if folder else shard for shard in shards)
    return True
