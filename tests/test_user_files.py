"""Files that people write: every encoding and line end, limits, and the sentence for what cannot be read."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dits_adapter import _user_files
from dits_adapter._user_files import (
    UserFileError,
    entries,
    map_array,
    numbered_lines,
    parse_yaml,
    read_json,
    read_yaml,
)
from tests.hostile_files import written

WORDS = ["dog", "été", "猫", "🙂 run\u2028on", "last"]
READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "list": ("\n".join(f" {word}\t" for word in WORDS), lambda path: [entry for _, entry in entries(path)]),
    "lines": ("\n".join(WORDS), lambda path: [line for _, line in numbered_lines(path) if line.strip()]),
    "JSON": (json.dumps(WORDS, ensure_ascii=False, indent=1), read_json),
    "YAML": (
        "\n".join(f"- {json.dumps(word, ensure_ascii=False)}".replace("\u2028", r"\L") for word in WORDS),
        read_yaml,
    ),
}


def put(folder: Path, content: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(content)
    return path


def refusal(read: Callable[[Path], Any], path: Path) -> str:
    """Return the message with which a reader refuses a file; "" where it reads it."""
    try:
        read(path)
    except UserFileError as error:
        return str(error)
    return ""


def put_array(path: Path, header: bytes, data: bytes = bytes(400), version: bytes = b"\1\0") -> Path:
    """Write an .npy file with a header of choice."""
    header = header.ljust(127 - 10) + b"\n"
    path.write_bytes(b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + data)
    return path


@pytest.mark.parametrize("reader", READERS)
def test_every_encoding_and_line_end_reads_alike(reader, tmp_path):
    text, read = READERS[reader]
    for kind, content in written(text):
        assert read(put(tmp_path, content)) == WORDS, kind


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ("a\nb\n- é\n".encode("latin-1"), 3, r"byte 3 \(0xe9\) is no UTF-8.*iconv"),
        ("ü\r\n猫".encode() + b"\x80", 2, r"byte 4 \(0x80\) is no UTF-8"),
        ("video0\n".encode("utf-16-le"), 1, "holds a NUL byte"),
        (b"\xff\xfea\0\0\xd8b\0", 1, "holds half of a character"),
        (b"\xff\xfea\0b", None, "is damaged"),
    ],
)
def test_a_file_that_is_no_text_is_named_with_its_line(reader, content, line, reason, tmp_path):
    path = put(tmp_path, content)
    with pytest.raises(UserFileError, match=reason) as caught:
        READERS[reader][1](path)
    assert (caught.value.path, caught.value.line) == (path, line)


@pytest.mark.parametrize("reader", READERS)
def test_any_bytes_are_read_or_refused(reader, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")

    @given(st.binary(max_size=60) | st.text("[]{}:*&!'\"-,0 \n\r\té\ud800", max_size=60).map(_bytes))
    def check(content: bytes) -> None:
        message = refusal(READERS[reader][1], put(folder, content))
        assert message == "" or message.startswith(f"{folder}/file")
        assert len(message) < 600

    check()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_file_or_a_folder_is_named(reader, tmp_path):
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UserFileError, match=f"cannot be read .{reason}"):
            READERS[reader][1](path)


def test_marks_within_a_file_are_those_of_files_that_were_joined(tmp_path):
    path = put(tmp_path, "\ufeffvideo0\n\ufeffvideo1\n".encode())
    assert list(entries(path)) == [(1, "video0"), (2, "video1")]


def test_a_list_of_objects_is_no_list(tmp_path):
    path = put(tmp_path, b'\n{"video": "a.mp4", "text": "a dog"}\n')
    with pytest.raises(UserFileError, match="line 2: is a JSON object; plain text is expected"):
        list(entries(path))
    assert list(entries(put(tmp_path, b"{a dog}\n"))) == [(1, "{a dog}")]


def test_lines_and_files_have_limits(tmp_path, monkeypatch):
    path = put(tmp_path, b"a\n" + b"x" * 2**20 + b"\n")
    assert [len(line) for _, line in numbered_lines(path)] == [1, 2**20]
    with pytest.raises(UserFileError, match="line 2: is longer than 1,048,576 characters"):
        list(entries(put(tmp_path, b"a\n" + b"x" * 20_000_000)))
    monkeypatch.setattr(_user_files, "_LARGEST_JSON", 100)
    assert read_json(put(tmp_path, b'"' + b"a" * 98 + b'"')) == "a" * 98
    with pytest.raises(UserFileError, match="is larger than 100 bytes"):
        read_json(put(tmp_path, b'"' + b"a" * 99 + b'"'))
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", b'"' + b"a" * 10_000_000 + b'"')
    with pytest.raises(UserFileError, match="is larger than 100 bytes"):
        read_json(tmp_path / "bomb.zip")


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "9" * 10_000])
def test_json_that_breaks_parsers_is_named(text, tmp_path):
    with pytest.raises(UserFileError, match=r"line 1: is JSON that (is nested too deeply|cannot be read)"):
        read_json(put(tmp_path, text.encode()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1, 1]\nb: &y [*x, *x]\nc: [*y, *y]\n", r"line 2: has the alias \*x; write the values out"),
        ("<<: *x", r"line 1: has the alias \*x"),
        ("[" * 100_000, "line 1: is YAML that is nested more than 32 deep"),
        ("\n".join(" " * n + "a:" for n in range(50)), "line 33: is YAML that is nested more than 32 deep"),
        ("a: [1\nb: 2", "line 2: is not YAML"),
        ("a: 2026-13-01", "is not YAML"),
        ("? [1]\n: 2", "is not YAML"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: \x07", "is not YAML"),
    ],
)
def test_yaml_is_of_plain_values(text, message):
    with pytest.raises(UserFileError, match=message):
        parse_yaml(text, "recipe.yaml")


def test_archives_of_a_mac_hold_what_was_packed(tmp_path):
    path = tmp_path / "a.ZIP"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data/captions.json", "\ufeff[1]".encode())
        archive.writestr("__MACOSX/data/._captions.json", b"\0\5\x16\7")
        archive.writestr("data/._captions.json", b"\0\5\x16\7")
        archive.writestr("data/readme.txt", b"")
    assert read_json(path) == [1]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other.json", b"2")
    with pytest.raises(UserFileError, match=r"one \.json in the archive is expected, 2 are there"):
        read_json(path)


def test_a_damaged_archive_is_named(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", json.dumps(list(range(500))))
    whole = path.read_bytes()
    assert read_json(path) == list(range(500))
    for place in np.linspace(0, len(whole) - 1, 80).astype(int).tolist():
        changed = bytearray(whole)
        changed[place] ^= 0x55
        path.write_bytes(changed)
        if not (message := refusal(read_json, path)):
            assert read_json(path) == list(range(500)), place
        assert message == "" or message.startswith(str(path))


class TestArrays:
    def test_maps_what_was_saved(self, tmp_path):
        expected = np.arange(12, dtype=np.float16).reshape(3, 4)
        np.save(tmp_path / "a.npy", expected)
        found = map_array(tmp_path / "a.npy")
        np.testing.assert_array_equal(found, expected)
        assert isinstance(found, np.memmap)

    @pytest.mark.parametrize(
        ("header", "reason"),
        [
            (b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 512), }", "it claims the shape"),
            (b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d, 512), }" % 2**70, "it claims the shape"),
            (b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -100), }", "it claims the shape"),
            (b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "Python objects"),
            (b"{'descr': '<f4', 'shape': (1,), }", "is no .npy array"),
            (b"[" * 100, "is no .npy array"),
            (b"{'descr': '<f4', 'fortran_order': False, 'shape': ((1,), 'a'), }", "is no .npy array"),
        ],
    )
    def test_a_header_is_not_believed(self, header, reason, tmp_path):
        with pytest.raises(UserFileError, match=rf"a\.npy: .*{reason}"):
            map_array(put_array(tmp_path / "a.npy", header))

    def test_other_files_are_named(self, tmp_path):
        for content in (b"", b"\x93NUMPY", b"\x93NUMPY\3\0" + bytes(200), b"PK\3\4" + bytes(200), b"text"):
            with pytest.raises(UserFileError, match=r"is no \.npy array of numbers"):
                map_array(put(tmp_path, content))
        with pytest.raises(UserFileError, match="No such file"):
            map_array(tmp_path / "none.npy")
