"""Models by name: bundled with the package, in a folder, or on the Hugging Face hub.

A hub repository is read at one commit, file by file as they are needed, by nothing but the addresses of files: a
mirror that knows no more is enough, and a commit whose files were downloaded needs no network.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib.resources import files
from os import PathLike, fspath
from pathlib import Path, PurePosixPath
from queue import Empty, Queue
from threading import Thread
from typing import TypeVar, cast
from urllib.parse import urlsplit

from dits_adapter._files import read_whole
from dits_adapter._wording import printable
from dits_adapter.errors import ArtifactError, MissingExtraError

__all__ = ["Repository", "absolute_name", "bundled", "open_repository", "pin"]

_logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_CONFIG = "config.json"
_COMMIT = re.compile("[0-9a-f]{40}")
_PATIENCE = 5.0
"""Seconds that the hub may take for its first answer, unless HF_HUB_ETAG_TIMEOUT is set."""

_OFFLINE = "Offline, give a folder with the model's files, or set HF_HOME to a cache that has them"


def bundled(name: str) -> Path | None:
    """Return the folder of a model that ships with the package (`demo-clip`, `demo-dits`), else None."""
    folder = Path(str(files("dits_adapter"))) / "pretrained" / name
    return folder if name and "/" not in name and folder.is_dir() else None


def absolute_name(id_or_path: str | PathLike[str]) -> str:
    """Return a name that means the same in every process: a relative folder as its absolute path."""
    name = fspath(id_or_path)
    return name if bundled(name) or not Path(name).exists() else str(Path(name).absolute())


def open_repository(id_or_path: str | PathLike[str], revision: str | None = None) -> Repository:
    """Open a model by bundled name, path or hub id (`owner/name`, `owner/name@revision`), in this order.

    A folder that a killed process was about to replace is put back first. Of the hub nothing but config.json is
    downloaded.

    Args:
        id_or_path: bundled name, path or hub id.
        revision: branch, tag, commit or pull request (`refs/pr/1`) of the hub; by default that of the id, or main.

    Raises:
        ArtifactError: no such folder or repository, or the hub gives nothing and the cache has nothing.
        MissingExtraError: a demo's model, in an installation without them.
    """
    name = fspath(id_or_path)
    path = bundled(name) or Path(name)
    if read_whole(path, path.is_dir):
        return Repository(path.absolute().name, path)
    if name.startswith("demo-") and bundled("demo-clip") is None:
        raise MissingExtraError("dits-adapter-demo", "demo", f"the demo's model {printable(name)}")
    if name.startswith("declared:"):
        raise ArtifactError(
            f"{printable(name)}: a declared encoder embeds nothing, and here one has to. Name one that can be "
            "loaded, or an adapter that was trained on its vectors; queries are vectors then, too "
            "(search --vectors FILE.npy)."
        )
    hub_id, _, of_id = name.partition("@")
    if path.exists() or path.is_absolute() or hub_id.count("/") != 1 or name.startswith((".", "~")):
        raise ArtifactError(f"{name}: no such folder. Give a folder, a bundled name or a hub id (owner/name).")
    return _Snapshot(hub_id, revision or of_id or "main")


def pin(id_or_path: str | PathLike[str], revision: str | None = None) -> str | None:
    """Return the commit that a revision of a hub id stands for now; None for a folder.

    Raises:
        ArtifactError: as `open_repository`.
    """
    return open_repository(id_or_path, revision).commit


class Repository:
    """Files of a model: a local folder, or one commit on the hub.

    Attributes:
        name: hub id, or name of the folder.
        folder: folder of its files; those of the hub come there as `find` and `fetch` ask for them.
        commit: full hash of the commit; None for a local folder.
    """

    def __init__(self, name: str, folder: Path, commit: str | None = None) -> None:
        self.name = name
        self.folder = folder
        self.commit = commit

    def find(self, file: str) -> Path | None:
        """Return the path of a file, None where the repository has none of this name.

        Where the hub cannot be reached, it has what the cache has.

        Raises:
            ArtifactError: the file cannot be downloaded.
        """
        path = self.folder / self._inside(file)
        return path if path.is_file() else None

    def fetch(self, files: Iterable[str]) -> None:
        """Download the files that there are, several at a time. Raises as `find`."""

    def _inside(self, file: str) -> str:
        """Refuse a name, which a config of the model may hold, of a file outside of it."""
        name = PurePosixPath(file)
        if name.is_absolute() or ".." in name.parts:
            raise ArtifactError(
                f"{self.name}: names {printable(file)!r} as a file of its own, which lies outside."
            )
        return file

    def require_known(self, file: str) -> None:
        """Refuse to judge by a file that is missing because the hub could not be asked for it.

        Raises:
            ArtifactError: says why the hub gives nothing.
        """


class _Snapshot(Repository):
    def __init__(self, name: str, revision: str) -> None:
        from huggingface_hub import constants, hf_hub_url
        from huggingface_hub.errors import HFValidationError

        try:
            self._address = hf_hub_url(name, _CONFIG, revision=revision)
        except HFValidationError:
            raise ArtifactError(f"{printable(name)}: is no folder here, and no hub id (owner/name).") from None
        if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", revision):
            raise ArtifactError(f"{name}: {printable(revision)!r} is no branch, tag or commit of the hub.")
        self._revision = revision
        cache = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
        super().__init__(name, cache)
        self.commit = self._find_commit()
        self.folder = cache / "snapshots" / self.commit
        self.require_known(_CONFIG)

    def _find_commit(self) -> str:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import FileMetadataError, RemoteEntryNotFoundError

        if _COMMIT.fullmatch(self._revision):
            return self._revision
        if self._refusal is not None:
            ref = self.folder / "refs" / self._revision
            if not ref.is_file():
                raise ArtifactError(self._refusal)
            return ref.read_text("utf-8")
        try:  # by the name of the revision, under which the cache then has its commit
            path = hf_hub_download(self.name, _CONFIG, revision=self._revision, etag_timeout=_patience())
            return Path(path).parent.name
        except RemoteEntryNotFoundError as error:
            commit = error.response.headers.get("X-Repo-Commit", "")
        except Exception as error:
            raise ArtifactError(_reason(self.name, self._revision, error)) from error
        if not _COMMIT.fullmatch(commit):  # it names a folder of the cache
            raise ArtifactError(_reason(self.name, self._revision, FileMetadataError("no commit")))
        return commit

    @cached_property
    def _refusal(self) -> str | None:
        """Reason why the hub gives nothing, in words; None where it does.

        One request with little patience: those of the hub client go on for minutes before they give up, and a
        server that sends a byte now and then is waited for without end.
        """
        from huggingface_hub import get_hf_file_metadata
        from huggingface_hub.errors import FileMetadataError, RemoteEntryNotFoundError

        patience = _patience()
        try:
            metadata = _within(patience, lambda: get_hf_file_metadata(self._address, timeout=patience))
            if metadata.commit_hash is None:
                raise FileMetadataError("no commit")
        except RemoteEntryNotFoundError:
            return None
        except Exception as error:  # those of the hub client, of its HTTP client, and OSError
            return _reason(self.name, self._revision, error)
        return None

    def _is_unknown(self, file: str) -> bool:
        """Tell whether neither the file nor its absence is in the cache."""
        from huggingface_hub import try_to_load_from_cache

        return try_to_load_from_cache(self.name, file, revision=self.commit) is None

    def find(self, file: str) -> Path | None:
        self.fetch([file])
        return super().find(file)

    def fetch(self, files: Iterable[str]) -> None:
        unknown = [file for file in files if self._is_unknown(self._inside(file))]
        if unknown and self._refusal is None:
            with ThreadPoolExecutor(8, thread_name_prefix="hub") as pool:
                list(pool.map(self._download, unknown))

    def _download(self, file: str) -> None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import RemoteEntryNotFoundError

        try:
            _logger.debug("%s: downloading %s", self.name, file)
            hf_hub_download(self.name, file, revision=self.commit, etag_timeout=_patience())
        except RemoteEntryNotFoundError:  # which the cache notes
            pass
        except Exception as error:
            raise ArtifactError(_reason(self.name, self._revision, error)) from error

    def require_known(self, file: str) -> None:
        if self._is_unknown(file) and self._refusal is not None:
            raise ArtifactError(self._refusal)


def _patience() -> float:
    from huggingface_hub import constants

    return constants.HF_HUB_ETAG_TIMEOUT if "HF_HUB_ETAG_TIMEOUT" in os.environ else _PATIENCE


def _within(seconds: float, ask: Callable[[], _T]) -> _T:
    """Return what a function returns, or raise what it raises, in so many seconds at most.

    Raises:
        TimeoutError: it takes longer; its thread goes on, and ends with the process.
    """
    answer: Queue[tuple[_T | None, Exception | None]] = Queue()

    def run() -> None:
        try:
            answer.put((ask(), None))
        except Exception as error:
            answer.put((None, error))

    Thread(target=run, daemon=True, name="hub").start()
    try:
        result, error = answer.get(timeout=seconds + 0.5)  # the client's own words, where it gives up in time
    except Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return cast("_T", result)


def _reason(name: str, revision: str, error: Exception) -> str:
    """Word an error of the hub client; never with its own text, which may quote addresses with a password."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    host = urlsplit(constants.ENDPOINT).hostname
    status = getattr(getattr(error, "response", None), "status_code", 0)
    login = "log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        return f"{name}: is gated. Accept its terms on its page at {host}, and {login}."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{name}: is no folder here, and {host} shows no such repository. If it is private, {login}."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name}: has no branch, tag or commit {revision!r}."
    if isinstance(error, errors.OfflineModeIsEnabled):
        reason = "HF_HUB_OFFLINE is set"
    elif status in (401, 403):
        reason = f"{host} refuses the token that you are logged in with"
    elif status == 429:
        reason = f"{host} has had too many requests from here; wait some minutes, or {login}"
    elif status >= 500:
        reason = f"{host} answers with status {status}; try again later"
    elif status or isinstance(error, errors.FileMetadataError):
        reason = f"{host} does not answer as a hub does; see HF_ENDPOINT and your proxy"
    elif isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
        return f"{name}: cannot be written to the hub's cache in {constants.HF_HUB_CACHE} ({error.strerror})."
    elif isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        reason = f"{host} did not answer within {_patience():g} s (HF_HUB_ETAG_TIMEOUT)"
    else:
        reason = f"{host} cannot be reached ({type(error).__name__})"
    return f"{name}: is no folder here, not in the hub's cache as a whole, and {reason}. {_OFFLINE}."
