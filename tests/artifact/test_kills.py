"""Saving that is killed, refused by the disk, or done by several at once: one whole artifact is in place."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from dits_adapter import _files
from dits_adapter.adapters import DITSAdapter
from dits_adapter.artifact import _find
from dits_adapter.artifact._find import is_artifact, require_free
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.encoders import load_encoder
from dits_adapter.errors import ArtifactError, InputError
from dits_adapter.sampler import SamplerConfig
from dits_adapter.space import EmbeddingSpace
from tests.crash import ENDED, KILLED, REFUSED, at_every_change, fork, kill_between_the_renames

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def make(seed, space):
    adapter = DITSAdapter(SamplerConfig(width=32, depth=1, steps=3))
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(seed))
    return Artifact(adapter.eval(), space, training={"seed": seed})


@pytest.fixture(scope="module")
def space(tiny_clip):
    return EmbeddingSpace.of(load_encoder(tiny_clip))


@pytest.fixture(scope="module")
def old(space):
    return make(0, space)


@pytest.fixture(scope="module")
def new(space):
    return make(1, space)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(params=["exchange", "two renames"])
def steps(request, monkeypatch):
    if request.param == "two renames":
        monkeypatch.setattr(_files, "_exchange", lambda *_: False)
    return request.param


@pytest.fixture
def folder(tmp_path, old):
    return old.save(tmp_path / "adapter")


def seed_in(folder):
    return Artifact.load(folder).training["seed"]


class TestOneWholeArtifactIsInPlace:
    def test_killed_at_any_moment(self, steps, folder, old, new):
        seen = []
        for code in at_every_change(lambda: new.save(folder)):
            assert code == KILLED
            seen.append(seed_in(folder))
            old.save(folder)
            assert os.listdir(folder.parent) == ["adapter"]
        assert sorted(seen) == seen
        assert set(seen) == {0, 1}

    def test_killed_where_nothing_was(self, tmp_path, new):
        folder = tmp_path / "adapter"
        for code in at_every_change(lambda: new.save(folder)):
            assert code == KILLED
            if folder.exists():
                assert seed_in(folder) == 1
            new.save(folder)
            assert os.listdir(tmp_path) == ["adapter"]
            shutil.rmtree(folder)

    @pytest.mark.parametrize(
        ("fault", "lasting"),
        [(errno.EIO, False), pytest.param(errno.ENOSPC, True, marks=pytest.mark.slow)],
        ids=["one error", "full disk"],
    )
    def test_refused_at_any_moment(self, steps, folder, old, new, fault, lasting):
        seen = []
        for code in at_every_change(lambda: new.save(folder), fault, lasting):
            assert code in (REFUSED, ENDED)
            if code == REFUSED:
                seen.append(seed_in(folder))
            else:
                assert seed_in(folder) == 1
            old.save(folder)
            assert os.listdir(folder.parent) == ["adapter"]
        assert sorted(seen) == seen  # nothing but the steps after the exchange leaves the new one
        assert seen.count(0) > 10

    def test_killed_between_the_two_renames(self, folder, new):
        """Whoever comes next finds the new one: a reader, a trainer that compares, the next writer."""
        for come_next in (Artifact.load, is_artifact, require_free):
            kill_between_the_renames(lambda: new.save(folder), folder)
            come_next(folder)
            assert folder.exists()
            assert seed_in(folder) == 1
            assert os.listdir(folder.parent) == ["adapter"]

    def test_what_cannot_be_put_back_is_said(self, folder, new, monkeypatch):
        kill_between_the_renames(lambda: new.save(folder), folder)

        def refused(*_):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(os, "rename", refused)
        with pytest.raises(
            ArtifactError, match=rf"{folder}: was being replaced.*Permission denied.*rename that"
        ) as e:
            Artifact.load(folder)
        monkeypatch.undo()
        left = Path(re.search(r"It is (\S+): rename", str(e.value))[1])
        assert seed_in(left) == 1
        assert seed_in(folder) == 1


class TestSeveralAtOnce:
    def test_writers_and_readers(self, steps, folder, old, new):
        """Two processes save as fast as they can; every load in between is of one of the two, whole."""
        adapters = {0: old.adapter.state_dict(), 1: new.adapter.state_dict()}
        writers = [fork(lambda one=one: [one.save(folder) for _ in range(40)]) for one in (old, new)]
        running = set(writers)
        while running:
            loaded = Artifact.load(folder)
            seed = loaded.training["seed"]
            for name, tensor in loaded.adapter.state_dict().items():
                assert torch.equal(tensor, adapters[seed][name])
            for process in list(running):
                if (ended := os.waitpid(process, os.WNOHANG))[0]:
                    assert ended[1] == 0
                    running.remove(process)
        assert os.listdir(folder.parent) == ["adapter"]

    def test_a_folder_that_is_replaced_while_it_is_looked_at(self, steps, folder, new, monkeypatch):
        """It is away for a moment where folders cannot be exchanged; it is an artifact all the same."""

        read = _find.read_json

        def replaced_meanwhile(path):
            monkeypatch.setattr(_find, "read_json", read)
            new.save(folder)
            raise InputError(f"{path}: no such file")

        for look in (require_free, is_artifact):
            monkeypatch.setattr(_find, "read_json", replaced_meanwhile)
            assert look(folder) in (None, True)
            assert seed_in(folder) == 1

    @pytest.mark.parametrize("when", ["before the first step", "after the second step failed"])
    def test_another_writer_moves_the_folder_between_two_steps(self, when, folder, new, monkeypatch):
        """The other one has put its folder there when the second step comes, which therefore fails."""
        rename, away, theirs, met = os.rename, folder.with_name("away"), folder.with_name("theirs"), []
        shutil.copytree(folder, theirs)

        def contended(source, target):
            if source == folder and when == "before the first step" and not met:
                rename(folder, away)
            if target == folder and not met:
                met.append(target)
                rename(theirs, folder)
                try:
                    rename(source, target)
                finally:
                    if when == "after the second step failed":
                        rename(folder, away)
            else:
                rename(source, target)

        monkeypatch.setattr(_files, "_exchange", lambda *_: False)
        monkeypatch.setattr(os, "rename", contended)
        new.save(folder)
        assert met
        assert seed_in(folder) == 1

    def test_a_living_writer_keeps_its_files(self, folder, old, new):
        with old.saving(folder) as fresh:
            new.save(folder)
            assert (fresh / "config.json").exists()
            assert seed_in(folder) == 1
        assert seed_in(folder) == 0
        assert os.listdir(folder.parent) == ["adapter"]


@pytest.mark.parametrize("name", ["new", "old", "lock", "a.b", "wörter im namen"])
def test_names_are_only_names(tmp_path, steps, name, old, new):
    """A neighbor whose name begins alike keeps what it is writing."""
    with old.saving(tmp_path / f"{name}.12345678") as neighbor:
        for artifact in (old, new):
            artifact.save(tmp_path / name)
        assert (neighbor / "config.json").exists()
    assert seed_in(tmp_path / name) == 1
    assert sorted(os.listdir(tmp_path)) == [name, f"{name}.12345678"]


def test_a_link_is_followed(tmp_path, steps, old, new):
    (tmp_path / "disk").mkdir()
    (tmp_path / "current").symlink_to(old.save(tmp_path / "disk" / "adapter"))
    new.save(tmp_path / "current")
    assert (tmp_path / "current").is_symlink()
    assert seed_in(tmp_path / "disk" / "adapter") == 1
