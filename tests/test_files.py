"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import stat

import pytest

from dits_adapter._files import replace_folder, require_writable, write_atomically
from dits_adapter.errors import InputError


class TestPlace:
    def test_a_missing_folder_is_judged_by_the_one_above_it(self, tmp_path, monkeypatch):
        require_writable(tmp_path / "new" / "deep")
        assert not (tmp_path / "new").exists()
        monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write anywhere
        with pytest.raises(InputError, match=f"cannot be written, as {tmp_path} forbids it"):
            require_writable(tmp_path / "new" / "deep")

    def test_a_file_in_the_way(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match="is no folder"):
            require_writable(tmp_path / "file" / "out")


class TestFile:
    def test_replaces_the_content_and_leaves_nothing_beside_it(self, tmp_path):
        path = tmp_path / "config.json"
        for content in ("first", "second"):
            with write_atomically(path) as part:
                assert part.read_text() == ""
                part.write_text(content)
            assert path.read_text() == content
        assert [file.name for file in tmp_path.iterdir()] == ["config.json"]

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_an_error_leaves_the_old_content(self, tmp_path, error):
        path = tmp_path / "config.json"
        path.write_text("old")

        def fail():
            with write_atomically(path) as part:
                part.write_text("half")
                raise error

        with pytest.raises(error):
            fail()
        assert path.read_text() == "old"
        assert [file.name for file in tmp_path.iterdir()] == ["config.json"]

    def test_has_the_permissions_of_any_new_file(self, tmp_path):
        (tmp_path / "usual").touch()
        with write_atomically(tmp_path / "written") as part:
            part.unlink()
            part.touch(mode=0o600)
        modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "written")]
        assert modes[0] == modes[1]

    def test_reaches_the_disk_before_it_gets_its_name(self, tmp_path, monkeypatch):
        events = []
        fsync, replace = os.fsync, os.replace
        monkeypatch.setattr("os.fsync", lambda handle: (events.append("fsync"), fsync(handle)))
        monkeypatch.setattr("os.replace", lambda *paths: (events.append("replace"), replace(*paths)))
        with write_atomically(tmp_path / "file") as part:
            part.write_text("content")
        assert events == ["fsync", "replace", "fsync"]  # the file, its name, the folder


class TestFolder:
    def test_replaces_a_folder_and_leaves_nothing_beside_it(self, tmp_path):
        target = tmp_path / "above" / "folder"
        for name in ("first", "second"):
            with replace_folder(target) as fresh:
                (fresh / "inner").mkdir()
                (fresh / "inner" / name).write_text(name)
            assert [file.name for file in (target / "inner").iterdir()] == [name]
        assert list(target.parent.iterdir()) == [target]

    def test_an_error_leaves_the_old_folder(self, tmp_path):
        target = tmp_path / "folder"
        target.mkdir()
        (target / "old").touch()

        def fail():
            with replace_folder(target) as fresh:
                (fresh / "half").touch()
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        assert [file.name for file in target.iterdir()] == ["old"]
        assert list(tmp_path.iterdir()) == [target]
