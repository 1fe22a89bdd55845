"""Aliases: a collection built anew beside the one that is searched, and taken into use by a switch.

Another CLIP means another embedding space: all videos are embedded again, and queries and index have to change
together. Another adapter for the same CLIP needs nothing of this: the index stays, the adapter is exchanged.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from qdrant_client import models
from typing_extensions import Unpack

from dits_adapter._wording import counted
from dits_adapter.errors import InputError, MissingCollectionError, StoreError
from dits_adapter.stores._discover import absolute, lies_in
from dits_adapter.stores.ingest import IngestKeywords, IngestOptions, Paths, ingest
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.stores.qdrant._requests import CollectionExists, DeleteCollection, UpdateAliases
from dits_adapter.stores.qdrant.store import QdrantStore
from dits_adapter.stores.report import IngestReport
from dits_adapter.stores.requests import from_keywords

if TYPE_CHECKING:
    from dits_adapter.video.encoder import VideoEncoder

__all__ = ["rebuild", "switch"]

_REPLACED = "-replaced"
"""Suffix of the alias under which the next run finds the old collection, should this one be killed before it
deletes it; the alias goes with it."""


def rebuild(
    store: QdrantStore,
    paths: Paths,
    encoder: VideoEncoder,
    options: IngestOptions | None = None,
    *,
    drop_old: bool = False,
    progress: bool = True,
    **keywords: Unpack[IngestKeywords],
) -> tuple[IngestReport, str]:
    """Ingest into a new collection, and switch the store's name to it when it is complete.

    The new collection is called after the alias and what it holds, so that a run that was stopped goes on where it
    was. Searches that are under way, and programs that opened the old collection, stay with it as long as it is
    there.

    Args:
        store: on a server, under an alias, or under a name that is free.
        paths, encoder, options, progress, keywords: as for `ingest`; `sync` and `bulk` are always set.
        drop_old: delete the old collection after the switch. If the store's name is that of a collection and no
            alias, this is needed, and for the moment between the two nothing is found under it.

    Returns:
        The report, and the name of the new collection.

    Raises:
        InputError: the collection is of this space and cut already; or a folder, which has no aliases.
            Or it keeps tenants apart.
        StoreError: no video could be read, or with `drop_old` not all, or the old collection has others, of files
            elsewhere than in `paths`; the alias was left as it was. Otherwise as `ingest`.
    """
    options = from_keywords(IngestOptions, options, keywords)
    if not store.capabilities.aliases:
        raise InputError(
            f"{store.location}: a rebuild needs a server; only a server has aliases. For a folder, ingest into "
            "another one."
        )
    alias = store.name
    metadata = CollectionMetadata(
        space=encoder.space, segment_seconds=options.segment_seconds, overlap=options.overlap
    )
    new = f"{alias}-{_digest(metadata)}"
    old = store.resolve()
    unfinished = QdrantStore(store.client, f"{new}{_REPLACED}").resolve() if drop_old else None
    previous = None if old is None else QdrantStore(store.client, old)
    existing = None if previous is None else previous.metadata()
    if store.tenant is not None or (existing is not None and existing.tenants):
        raise InputError(
            f"{alias!r} keeps tenants apart, and an alias is switched for all of them at once. Ingest each "
            "tenant's videos into a new collection, and then have the alias mean it: dits-adapter "
            f"switch COLLECTION --collection {alias}"
        )
    if old is not None:
        is_done = existing is not None and existing.layout is None and _digest(existing) == _digest(metadata)
        if is_done and unfinished is None:
            raise InputError(
                f"{alias!r} is of this embedding space and cut like this already. `dits-adapter ingest` brings it "
                "up to date; another adapter for the same CLIP needs no new index."
            )
        if old == alias and not drop_old:
            raise InputError(
                f"{alias!r} is a collection and no alias, so it has to go before the new one can take its name: "
                "say so with --drop-old, or rebuild under another name."
            )
    roots = absolute(paths)
    fresh = QdrantStore(store.client, new)
    # an earlier rebuild may have left the collection, with files that are gone by now
    report = ingest(fresh, roots, encoder, replace(options, sync=True, bulk=True), progress=progress)
    if fresh.count() == 0:
        raise StoreError(f"no video could be read; {alias!r} was left as it was.")
    if drop_old and report.failed:
        raise StoreError(
            f"{counted(len(report.failed), 'file')} could not be read, which the old collection may hold: "
            f"{alias!r} was left as it was, and nothing was deleted. {new!r} is there; mend the files "
            "and run again, or switch."
        )
    if drop_old and previous is not None and (others := _other_folders(previous, fresh, roots)):
        raise StoreError(
            f"the old collection also has videos of {', '.join(others)}, which would be lost: {alias!r} was left "
            f"as it was, and nothing was deleted. {new!r} is there; name those folders, too, or leave out "
            "--drop-old."
        )
    if unfinished is not None and unfinished != old:
        store.send(DeleteCollection(collection_name=unfinished))
    if old == alias:
        store.send(DeleteCollection(collection_name=old))
    replaced = old if drop_old and old not in (alias, new) else None
    _switch(store, new, replaced)
    if replaced is not None:
        store.send(DeleteCollection(collection_name=replaced))
    return report, new


def switch(store: QdrantStore, collection: str) -> None:
    """Switch the store's name, an alias or free, to another collection, in one step.

    Raises:
        StoreError: there is no such collection, or the server cannot be reached.
    """
    _switch(store, collection)


def _switch(store: QdrantStore, collection: str, replaced: str | None = None) -> None:
    """Switch as `switch`, and in the same step remember the collection that is to be deleted."""
    operations: list[models.AliasOperations] = []
    old = store.resolve()
    if old == store.name:
        raise StoreError(f"{old!r} is a collection; only an alias can be switched to another one.")
    if not store.send(CollectionExists(collection_name=collection)):
        raise MissingCollectionError(
            f"{store.location} has no collection {collection!r}; {store.name!r} was left as it was."
        )
    if old is not None:
        operations.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=store.name)))
    aliases = {store.name: collection}
    if replaced is not None:
        aliases[f"{collection}{_REPLACED}"] = replaced
    for alias, meaning in aliases.items():
        create = models.CreateAlias(collection_name=meaning, alias_name=alias)
        operations.append(models.CreateAliasOperation(create_alias=create))
    store.send(UpdateAliases(change_aliases_operations=operations))


def _other_folders(previous: QdrantStore, fresh: QdrantStore, roots: list[str]) -> list[str]:
    """List the topmost folders outside of these from which the new collection lacks videos of the previous one."""
    present = {record.video_id for record in fresh.records()}
    lost = [record.path for record in previous.records() if not record.failure and record.video_id not in present]
    folders = {os.path.dirname(path) for path in lost if path not in roots and not lies_in(path, roots)}
    return sorted(folder for folder in folders if not lies_in(folder, folders))


def _digest(metadata: CollectionMetadata) -> str:
    identity = f"{metadata.space.video.fingerprint} {metadata.segment_seconds} {metadata.overlap}"
    return hashlib.sha256(identity.encode()).hexdigest()[:8]
