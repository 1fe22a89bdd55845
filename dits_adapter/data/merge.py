"""Caches that several machines began from the same pairs, merged into one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from dits_adapter._files import replace_folder, require_writable
from dits_adapter.data._cache_index import INDEX, KINDS, CacheIndex, Kind, is_cache, read_index, shard_file
from dits_adapter.data._shards import ShardReader
from dits_adapter.data.cache import EmbeddingCache
from dits_adapter.errors import DITSError, InputError

__all__ = ["merge_caches"]


def merge_caches(parts: Sequence[str | PathLike[str]], out: str | PathLike[str]) -> EmbeddingCache:
    """Write the cache that one machine would have made, byte for byte, from the parts of several.

    Args:
        parts: caches of `embed` with `shard`, of the same pairs and encoder.
        out: the cache's folder: new, empty, or a cache, which is replaced.

    Raises:
        InputError: no parts, or a folder that holds something else or cannot be written.
        SpaceMismatchError: parts of two encoders.
        DITSError: a part is no cache, damaged, or of other pairs than the first; or shards that no part has.
    """
    target, folders = Path(out), [Path(part) for part in parts]
    if not folders:
        raise InputError("merge: there are no caches to merge.")
    require_writable(target.absolute().parent)
    if target.exists() and not is_cache(target) and (target.is_file() or any(target.iterdir())):
        raise InputError(f"{target}: holds something else than a cache; choose a new or empty folder.")
    merged = read_index(folders[0]).model_copy(deep=True)
    owners = {(kind, place): folders[0] for kind in KINDS for place in merged.section(kind).shards}
    for folder in folders[1:]:
        index = read_index(folder)
        _require_same_source(folders[0], merged, folder, index)
        owners |= _add(merged, index, folder)
    for kind in KINDS:
        section = merged.section(kind)
        if missing := section.missing():
            raise DITSError(
                f"{len(missing)} of {len(section.spans())} shards of {kind} are in none of these caches; first "
                f"{kind} {missing[0].start} to {missing[0].stop - 1}. Name the caches of the other --shard, "
                "and let those that are not finished finish."
            )
    for folder in folders:
        for kind in KINDS:
            ShardReader(folder, read_index(folder), kind).require_files()
    merged.checksum = merged.expected_checksum()
    with replace_folder(target) as fresh:
        for (kind, place), folder in owners.items():
            shutil.copyfile(shard_file(folder, kind, place), shard_file(fresh, kind, place))
        (fresh / INDEX).write_text(merged.model_dump_json(indent=1) + "\n", "utf-8")
    return EmbeddingCache(target)


def _require_same_source(first: Path, merged: CacheIndex, folder: Path, index: CacheIndex) -> None:
    merged.space.require(index.space, mine=f"the cache {first}", theirs=f"the cache {folder}", together=True)
    sources = [(i.source, i.frames, i.id_bytes, i.grouped, i.marked, *_sizes(i)) for i in (merged, index)]
    if sources[0] != sources[1]:
        raise DITSError(f"{folder}: was made from other pairs than {first}; only parts of one run are merged.")


def _sizes(index: CacheIndex) -> list[int]:
    return [size for section in (index.texts, index.videos) for size in (section.total, section.span)]


def _add(merged: CacheIndex, index: CacheIndex, folder: Path) -> dict[tuple[Kind, int], Path]:
    """Add the shards that are missing, or that have more videos than before; return whose they are."""
    taken: dict[tuple[Kind, int], Path] = {}
    for kind in KINDS:
        section = merged.section(kind)
        spans = section.spans()
        for place, shard in index.section(kind).shards.items():
            before = section.shards.get(place)
            if before is None or before.rows < shard.rows:
                section.shards[place] = shard
                taken[kind, place] = folder
                if kind == "videos":
                    span = spans[place]
                    others = [failed for failed in merged.failures if failed.number not in span]
                    new = [failed for failed in index.failures if failed.number in span]
                    merged.failures = sorted([*others, *new], key=lambda failed: failed.number)
        section.shards = dict(sorted(section.shards.items()))
    return taken
