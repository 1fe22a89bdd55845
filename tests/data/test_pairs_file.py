"""Files of pairs: read as streams, refused by the line."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dits_adapter.data._ids import did_you_mean
from dits_adapter.data.pairs_file import PairsFile
from dits_adapter.errors import (
    InputError,
)
from tests.data.fakes import write_pairs
from tests.hostile_files import written


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
        assert [text[:2] for text in file.iter_texts()] == [("one", 0), ("two", 1), ("three", 1), ("été", 0)]
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
            assert [text.video for text in file.iter_texts()] == [rows.setdefault(v, len(rows)) for v in videos]
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
            ('{"video": "a\\u0000.mp4", "id": "a", "text": "a"}', '"video" holds a NUL'),
            ('{"video": "\\udc80.mp4", "id": "a", "text": "a"}', "surrogates not allowed"),
            ('{"video": "a.mp4"}', '"text" must be'),
            ('{"video": "a.mp4", "text": ' + "[" * 100_000, "nested too deeply"),
            ('{"video": "a.mp4", "text": ' + "9" * 10_000 + "}", "cannot be read"),
            ('{"video": "a.mp4", "text": []}', '"text" must be'),
            ('{"video": "a.mp4", "text": ["a", 3]}', '"text" is of type int'),
            ('{"video": "a.mp4", "text": ["a", " "]}', '"text" is empty'),
            ('{"video": "a.mp4", "text": "' + "a" * 200_000 + '"}', '"text" has 200,000 characters'),
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
        _, number, fault = str(caught.value).partition(" line 2: ")
        assert number
        assert reason in fault

    def test_lists_the_first_bad_lines_and_counts_the_others(self, tmp_path):
        (tmp_path / "pairs.jsonl").write_bytes(b"nonsense\n" * 8)
        with pytest.raises(InputError) as caught:
            PairsFile(tmp_path / "pairs.jsonl")
        assert "8 of them" in str(caught.value)
        assert re.findall(r"line \d(?=:)|… and . more\.$", str(caught.value)) == [
            *(f"line {n}" for n in range(1, 6)),
            "… and 3 more.",
        ]
        assert "\n" not in str(caught.value)

    def test_every_encoding_and_line_end_reads_alike(self, tmp_path):
        lines = [{"video": "é.mp4", "text": ["a dog", "猫"]}, {"video": "b.mp4", "id": " b ", "text": "two"}]
        text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
        for kind, content in written(text):
            (tmp_path / "pairs.jsonl").write_bytes(content)
            file = PairsFile(tmp_path / "pairs.jsonl")
            assert [text[:2] for text in file.iter_texts()] == [("a dog", 0), ("猫", 0), ("two", 1)], kind
            assert [video.id for video in file.iter_videos()] == ["é.mp4", "b"], kind

    @pytest.mark.parametrize("content", ["video,text\na.mp4,a dog\n", "video;text\na.mp4;a dog", "a.mp4\ta dog"])
    def test_a_table_given_as_pairs_is_told_what_a_line_looks_like(self, tmp_path, content):
        (tmp_path / "pairs.txt").write_text(content)
        with pytest.raises(InputError, match=r'such as \{"video": "clips/a.mp4", .*\}\. This looks like .* \.csv'):
            PairsFile(tmp_path / "pairs.txt")
        with pytest.raises(InputError, match=r'such as \{"id": "a", "text"'):
            PairsFile(tmp_path / "pairs.txt", files=False)

    def test_all_paths_to_a_file_are_one_video(self, tmp_path):
        folder = tmp_path / "videos"
        (folder / "sub").mkdir(parents=True)
        for name in ("a.mp4", " blank .mp4 "):
            (folder / name).touch()
        (folder / "link.mp4").symlink_to("a.mp4")
        (folder / "other").symlink_to("sub")
        os.link(folder / "a.mp4", folder / "sub" / "hard.mp4")
        paths = ["a.mp4", "link.mp4", "sub/../a.mp4", "./sub/hard.mp4", str(folder / "a.mp4"), " a.mp4 "]
        paths += ["other/hard.mp4", " blank .mp4 ", "sub/none.mp4", "other/none.mp4"]
        lines = [{"video": path, "text": path} for path in paths]
        file = PairsFile(write_pairs(tmp_path / "pairs.jsonl", lines), folder)
        assert [text.video for text in file.iter_texts()] == [0] * 7 + [1, 2, 2]
        assert [video.id for video in file.iter_videos()] == ["a.mp4", " blank .mp4 ", "sub/none.mp4"]
        lines = [{"video": "a.mp4", "id": "a", "text": "t"}, {"video": "link.mp4", "id": "b", "text": "t"}]
        with pytest.raises(InputError, match=r"line 2: the video link.mp4 has the id 'b', on line 1 'a'"):
            PairsFile(write_pairs(tmp_path / "pairs.jsonl", lines), folder)

    def test_the_name_of_one_video_is_not_the_id_of_another(self, tmp_path):
        lines = [{"video": "a", "text": "t"}, {"video": "b", "id": "a", "text": "t"}]
        for order in (lines, lines[::-1]):
            with pytest.raises(InputError, match="line 2: the id 'a' is given to"):
                PairsFile(write_pairs(tmp_path / "pairs.jsonl", order))

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


def test_a_suffix_alone_makes_no_names_alike():
    assert did_you_mean("c0.mp4", ["éé.mp4", "notes.txt"]) == ""
    assert did_you_mean("dog_run.mp4", ["éé.mp4", "dog_runs.mp4"]) == "; did you mean 'dog_runs.mp4'?"
