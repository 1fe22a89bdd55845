"""Files of pairs: read as streams, refused by the line."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dits_adapter.data.pairs_file import PairsFile
from dits_adapter.errors import (
    InputError,
)
from tests.data.fakes import write_pairs


class TestPairsFile:
    def test_reads_texts_and_videos_of_lines_in_any_order(self, tmp_path):
        path = tmp_path / "pairs.jsonl"
        path.write_bytes(
            b'\xef\xbb\xbf{"video": "b.mp4", "text": "one"}\n\n'
            b'{"video": "sub/a.mp4", "text": ["two", "three"], "id": 7, "extra": null}\r\n'
            b'{"video": "./b.mp4", "text": "\xc3\xa9t\xc3\xa9"}'
        )
        file = PairsFile(path)
        assert (file.texts, file.videos, file.id_bytes) == (4, 2, 5)
        assert list(file.iter_texts()) == [("one", 0), ("two", 1), ("three", 1), ("été", 0)]
        assert [(v.number, v.id, v.path) for v in file.iter_videos()] == [
            (0, "b.mp4", str(tmp_path / "b.mp4")),
            (1, "7", str(tmp_path / "sub/a.mp4")),
        ]
        elsewhere = PairsFile(path, "/videos")
        assert [v.path for v in elsewhere.iter_videos()] == ["/videos/b.mp4", "/videos/sub/a.mp4"]

    @given(st.lists(st.sampled_from([f"v{n}" for n in range(6)]), min_size=1, max_size=30))
    def test_numbers_are_those_of_a_dictionary(self, videos):
        with tempfile.TemporaryDirectory() as folder:
            lines = [{"video": video, "text": "x"} for video in videos]
            file = PairsFile(write_pairs(Path(folder) / "pairs.jsonl", lines))
            rows: dict[str, int] = {}
            assert [number for _, number in file.iter_texts()] == [rows.setdefault(v, len(rows)) for v in videos]
            assert [(v.id, v.number) for v in file.iter_videos()] == list(rows.items())

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("{", "is not JSON"),
            ("[1]", "is not a JSON object"),
            ('{"text": "a"}', 'lacks "video"'),
            ('{"video": 3, "text": "a"}', '"video" must be'),
            ('{"video": "", "text": "a"}', '"video" must be'),
            ('{"video": "a.mp4", "id": true, "text": "a"}', "a whole number"),
            ('{"video": "a.mp4"}', '"text" must be'),
            ('{"video": "a.mp4", "text": []}', '"text" must be'),
            ('{"video": "a.mp4", "text": ["a", 3]}', '"text" is of type int'),
            ('{"video": "a.mp4", "text": ["a", " "]}', '"text" is empty'),
            ('{"video": "a.mp4", "text": "\\ud800"}', "is no character"),
            ('{"video": "a.mp4", "id": "", "text": "a"}', "the id '' is empty"),
            ('{"video": "' + "a" * 2000 + '", "text": "a"}', "longer than 1024 bytes"),
        ],
    )
    def test_says_which_line_is_bad_and_why(self, tmp_path, line, reason):
        path = tmp_path / "pairs.jsonl"
        path.write_text('{"video": "a.mp4", "text": "fine"}\n' + line + "\n")
        with pytest.raises(InputError) as caught:
            PairsFile(path)
        found = str(caught.value).splitlines()[1]
        assert found.startswith("line 2: ")
        assert reason in found

    def test_lists_the_first_bad_lines_and_counts_the_others(self, tmp_path):
        (tmp_path / "pairs.jsonl").write_bytes(b"\xff\n" * 8)
        with pytest.raises(InputError) as caught:
            PairsFile(tmp_path / "pairs.jsonl")
        lines = str(caught.value).splitlines()
        assert "8 of them" in lines[0]
        assert [line.split(":")[0] for line in lines[1:]] == [*(f"line {n}" for n in range(1, 6)), "… and 3 more"]

    def test_refuses_an_id_of_two_videos_and_a_video_of_two_ids(self, tmp_path):
        lines = [{"video": "a", "id": "x", "text": "t"}, {"video": "c", "text": "t"}]
        path = write_pairs(tmp_path / "ids.jsonl", [*lines, {"video": "b", "id": "x", "text": "t"}])
        with pytest.raises(InputError, match="line 3: the id 'x' is given to b, on line 1 to a"):
            PairsFile(path)
        path = write_pairs(tmp_path / "videos.jsonl", [*lines, {"video": "a", "id": "y", "text": "t"}])
        with pytest.raises(InputError, match="line 3: the video a has the id 'y', on line 1 'x'"):
            PairsFile(path)

    def test_refuses_a_file_that_is_missing_empty_or_changing(self, tmp_path):
        with pytest.raises(InputError, match="No such file"):
            PairsFile(tmp_path / "none.jsonl")
        with pytest.raises(InputError, match="holds no pairs"):
            PairsFile(write_pairs(tmp_path / "empty.jsonl", []))
        file = PairsFile(write_pairs(tmp_path / "pairs.jsonl", [{"video": "a", "text": "t"}]))
        write_pairs(tmp_path / "pairs.jsonl", [{"video": "b", "text": "other"}])
        with pytest.raises(InputError, match="was changed"):
            next(file.iter_texts())
