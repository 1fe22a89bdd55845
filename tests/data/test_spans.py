"""Spans of files as videos, and the sources and confidences of texts, from a pairs file to cached pairs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dits_adapter.cli import main
from dits_adapter.data._ids import source_file
from dits_adapter.data.cache import EmbeddingCache
from dits_adapter.data.embed import embed, embed_from_store
from dits_adapter.data.merge import merge_caches
from dits_adapter.data.pairs import Pairs, load_pairs
from dits_adapter.data.pairs_file import PairsFile
from dits_adapter.data.provenance import SOURCES
from dits_adapter.errors import DITSError, InputError
from dits_adapter.stores.ingest import ingest
from dits_adapter.stores.memory import MemoryStore
from dits_adapter.training.joint.captions import Captions
from dits_adapter.video._frames import interval_middles
from dits_adapter.video.decode import Video
from dits_adapter.video.encoder import VideoEncoder
from tests.data.fakes import FRAMES, FakeEncoder, contents, run, vector_of, write_pairs
from tests.stores.fakes import unit
from tests.video.clips import picture, write_clip


@pytest.fixture
def spans(tmp_path, small_shards):
    """Four fake files of 30 s, one broken, in spans of 10 s whose lines are mixed, with a source each."""
    for n in range(4):
        (tmp_path / f"{n}.mp4").write_text("broken: torn" if n == 2 else f"video {n}")
    lines = [
        {
            "video": f"{n}.mp4",
            "start": start,
            "end": start + 10,
            "text": [f"text {n} {start}", f"again {n} {start}"],
            "source": "speech" if n else "human",
            "confidence": 0.25 * (n + 1),
        }
        for start in (10, 0, 20, 40)
        for n in range(4)
    ]
    return write_pairs(tmp_path / "pairs.jsonl", lines)


class TestPairsFile:
    def test_a_span_of_a_file_is_a_video(self, tmp_path):
        lines = [
            {"video": "a.mp4", "start": 12, "end": 20.5, "text": "one"},
            {
                "video": "./a.mp4",
                "start": 12.0,
                "end": 20.4999,
                "text": "two",
                "source": "speech",
                "confidence": 0.5,
            },
            {"video": "a.mp4", "text": "the whole", "source": None, "start": None},
            {"video": "a.mp4", "start": 0, "end": 12, "text": "three", "id": "opening"},
        ]
        file = PairsFile(write_pairs(tmp_path / "pairs.jsonl", lines))
        path = str(tmp_path / "a.mp4")
        assert list(file.iter_videos()) == [
            (0, "a.mp4#t=12,20.5", path, 0, (12.0, 20.5)),
            (1, "a.mp4", path, 0, None),
            (2, "opening", path, 0, (0.0, 12.0)),
        ]
        assert file.grouped
        assert list(file.iter_texts()) == [
            ("one", 0, "human", 1.0),
            ("two", 0, "speech", 0.5),
            ("the whole", 1, "human", 1.0),
            ("three", 2, "human", 1.0),
        ]
        assert file.marked
        assert [source_file(video.id) for video in file.iter_videos()] == ["a.mp4", "a.mp4", "opening"]

    def test_columns_of_a_table_are_the_keys(self, tmp_path):
        (tmp_path / "pairs.csv").write_text(
            "video,text,start,end,source,confidence\na.mp4,one,12,20,caption,.5\na.mp4,two,,,,\n"
        )
        file = PairsFile(tmp_path / "pairs.csv")
        assert [(video.id, video.span) for video in file.iter_videos()] == [
            ("a.mp4#t=12,20", (12.0, 20.0)),
            ("a.mp4", None),
        ]
        assert [text[2:] for text in file.iter_texts()] == [("caption", 0.5), ("human", 1.0)]
        stored = PairsFile(tmp_path / "pairs.csv", files=False)
        assert [(video.id, video.path) for video in stored.iter_videos()] == [
            ("a.mp4#t=12,20", "a.mp4"),
            ("a.mp4", "a.mp4"),
        ]

    @pytest.mark.parametrize(
        ("marks", "reason"),
        [
            ('"start": 3', '"start" or "end" alone'),
            ('"start": 3, "end": 3.0001', "expected seconds with 0 <= start < end"),
            ('"start": -1, "end": 3', "expected seconds with 0 <= start < end"),
            ('"start": "soon", "end": 3', "\"start\" is 'soon'; expected a number"),
            ('"start": true, "end": 3', '"start" is True; expected a number'),
            ('"start": 0, "end": Infinity', '"end" is inf; expected a number'),
            ('"start": 0, "end": 1' + "0" * 400, "expected a number"),
            ('"source": "robot"', "\"source\" is 'robot'; expected one of human, feedback, "),
            ('"source": ["human"]', '"source" is '),
            ('"confidence": 0', '"confidence" is 0; expected a probability'),
            ('"confidence": 80', '"confidence" is 80; expected a probability'),
            ('"confidence": NaN', '"confidence" is nan; expected a number'),
        ],
    )
    def test_bad_marks_are_named_with_their_line(self, tmp_path, marks, reason):
        (tmp_path / "pairs.jsonl").write_text('{"video": "a.mp4", "text": "a dog", ' + marks + "}\n")
        with pytest.raises(InputError) as caught:
            PairsFile(tmp_path / "pairs.jsonl")
        assert "line 1: " in str(caught.value)
        assert reason in str(caught.value)

    def test_an_id_of_two_spans_is_refused(self, tmp_path):
        lines = [{"video": "a.mp4", "start": n, "end": n + 1, "id": "x", "text": "t"} for n in (0, 1)]
        with pytest.raises(InputError, match=r"the id 'x' is given to a\.mp4#t=1,2, on line 1 to a\.mp4#t=0,1"):
            PairsFile(write_pairs(tmp_path / "pairs.jsonl", lines))

    def test_lines_of_little_confidence_are_left_out(self, spans):
        every, some = PairsFile(spans), PairsFile(spans, min_confidence=0.5)
        assert (every.texts, every.videos, every.left_out) == (32, 16, 0)
        assert (some.texts, some.videos, some.left_out) == (24, 12, 4)
        assert {text.confidence for text in some.iter_texts()} == {0.5, 0.75, 1.0}
        assert [video.number for video in some.iter_videos()] == list(range(12))
        assert some.sha256 != every.sha256
        path = write_pairs(spans.with_name("few.jsonl"), [{"video": "a", "text": "t", "confidence": 0.5}] * 2)
        with pytest.raises(InputError, match="confidence 1 or more, and 2 of less"):
            PairsFile(path, min_confidence=1)
        with pytest.raises(InputError, match="expected a probability"):
            PairsFile(spans, min_confidence=80)


class TestEmbed:
    def test_frames_of_a_span_are_the_middles_of_its_equal_parts(self, tmp_path, tiny_clip):
        path = write_clip(tmp_path / "a.mp4", [picture(i) for i in range(60)])
        with Video(path) as video:
            duration = video.duration
        thirds = [(round(k * duration / 3, 3), round((k + 1) * duration / 3, 3)) for k in range(3)]
        lines = [{"video": "a.mp4", "start": a, "end": b, "text": f"{a}"} for a, b in thirds[::-1]]
        lines += [{"video": "a.mp4", "text": "all"}, {"video": "a.mp4", "start": 9, "end": 99, "text": "late"}]
        pairs = write_pairs(tmp_path / "pairs.jsonl", lines)
        encoder = VideoEncoder.from_pretrained(tiny_clip, frames=FRAMES, device="cpu")

        report = embed(pairs, tmp_path / "cache", encoder, progress=False)

        cached = load_pairs(tmp_path / "cache")
        assert cached.frames is not None
        with Video(path) as video:
            for row, (start, end) in enumerate([*thirds[::-1], (0.0, duration)]):
                frames = video.frames_at(interval_middles(start, min(end, duration), FRAMES)).frames
                expected = encoder.encoder.embed([encoder.encoder.preprocess(list(frames))], 96).frames[0]
                expected /= np.linalg.norm(expected, axis=1, keepdims=True)
                np.testing.assert_allclose(cached.frames[row], expected, atol=1e-5)
        assert [(failed.id, failed.reason) for failed in report.failures] == [
            ("a.mp4#t=9,99", f"lasts {duration:.2f} s; of 9 s to 99 s less than half lies in it")
        ]

    def test_a_file_is_opened_once_for_its_spans_and_fails_alone(self, spans, tmp_path, monkeypatch):
        monkeypatch.undo()  # one shard
        encoder = FakeEncoder()
        report = run(spans, tmp_path / "cache", encoder)
        assert encoder.decoded == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]
        assert (report.videos, report.skipped_texts) == (9, 14)
        assert "texts by source  6 human, 12 speech" in str(report)
        reasons = {failed.id: failed.reason for failed in report.failures}
        assert reasons.pop("0.mp4#t=40,50") == "lasts 30.00 s; of 40 s to 50 s less than half lies in it"
        assert {reasons[f"2.mp4#t={a},{a + 10}"] for a in (0, 10, 20, 40)} == {"broken: torn"}
        cached = load_pairs(tmp_path / "cache")
        rows = {name: row for row, name in enumerate(cached.video_ids)}
        frames = np.stack([vector_of(f"video 3 (10.0, 20.0) {n}") for n in range(FRAMES)])
        np.testing.assert_allclose(cached.video[rows["3.mp4#t=10,20"]], unit(frames.mean(axis=0)), atol=1e-6)

    def test_marks_travel_with_their_texts(self, spans, tmp_path):
        run(spans, tmp_path / "cache")
        cached = load_pairs(tmp_path / "cache")

        def told(pairs):
            ids = [pairs.video_ids[label] for label in pairs.labels]
            sources = [SOURCES[code] for code in pairs.marks.sources]
            return list(zip(ids, sources, pairs.marks.confidences.tolist(), strict=True))

        def expected(name):
            n = int(name[0])
            return name, "speech" if n else "human", 0.25 * (n + 1)

        for pairs in (cached, cached.of_videos(np.array([8, 2, 5])), cached.split(0.4, 1)[1]):
            assert told(pairs) == [expected(name) for name, _, _ in told(pairs)]
        cached.save(tmp_path / "pairs.safetensors")
        assert told(Pairs.load(tmp_path / "pairs.safetensors")) == told(cached)

    def test_spans_with_ids_of_their_own_are_known_to_be_of_one_file(self, spans, tmp_path):
        lines = [json.loads(line) for line in spans.read_text().splitlines()]
        for number, line in enumerate(lines):
            line["id"] = f"clip-{number}"
        run(write_pairs(spans, lines), tmp_path / "cache")
        cached = load_pairs(tmp_path / "cache")
        numbers = [int(name.removeprefix("clip-")) for name in cached.video_ids]
        files = [lines[number]["video"] for number in numbers]
        assert cached.groups.whole.tolist() == [files.index(name) for name in files]
        cached.save(tmp_path / "pairs.safetensors")
        again = Pairs.load(tmp_path / "pairs.safetensors")
        assert again.groups.whole.tolist() == cached.groups.whole.tolist()
        assert again.digest == cached.digest
        few = np.array([1, 2, 5])
        assert again.of_videos(few).groups.whole.tolist() == cached.of_videos(few).groups.whole.tolist()

    def test_shards_and_an_interrupted_run_give_the_same_bytes(self, spans, tmp_path):
        run(spans, tmp_path / "whole")
        folders = [tmp_path / f"part-{number}" for number in (1, 2, 3)]
        for number, folder in enumerate(folders, 1):
            run(spans, folder, shard=(number, 3))
        merge_caches(folders, tmp_path / "merged")
        assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
        for name in ("texts-00001", "videos-00002"):
            (tmp_path / "merged" / f"{name}.safetensors").unlink()
        run(spans, tmp_path / "merged")
        assert contents(tmp_path / "merged") == contents(tmp_path / "whole")

    def test_pairs_without_marks_leave_a_cache_as_it_was(self, fake_pairs, tmp_path):
        run(fake_pairs, tmp_path / "cache")
        cache = EmbeddingCache(tmp_path / "cache")
        assert cache.marks is None
        assert "marked" not in (tmp_path / "cache" / "index.json").read_text()

    def test_another_threshold_is_another_cache(self, spans, tmp_path, capsys):
        run(spans, tmp_path / "cache")
        with pytest.raises(DITSError, match="other pairs"):
            embed(PairsFile(spans, min_confidence=0.3), tmp_path / "cache", FakeEncoder(), progress=False)
        assert main(["embed", str(spans), "--min-confidence", "7", "--encoder", "x", "--out", "y"]) == 1
        assert "expected a probability from 0 to 1" in capsys.readouterr().err

    def test_joint_training_names_the_span_that_it_cannot_take(self, spans):
        with pytest.raises(InputError, match=r"0\.mp4#t=10,20 is a span of a video"):
            Captions.read(spans)

    def test_joint_training_says_whose_texts_it_chooses_by(self, tmp_path):
        lines = [
            {"video": "a.mp4", "text": "a dog"},
            {"video": "b.mp4", "text": ["a cat", "cats"], "source": "caption"},
        ]
        path = tmp_path / "pairs.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        with pytest.warns(UserWarning, match=r"of its 3 texts some .* \(2 of caption\)"):
            Captions.read(path)


class TestFromStore:
    def test_a_span_is_read_from_the_segments_that_it_covers(self, tmp_path, tiny_clip):
        clip = write_clip(tmp_path / "a.mp4", [picture(i) for i in range(100)])
        with Video(clip) as video:
            fourth = video.duration / 4
        encoder = VideoEncoder.from_pretrained(tiny_clip, frames=FRAMES, device="cpu")
        store = MemoryStore()
        ingest(store, [clip], encoder, segment_seconds=fourth, progress=False)
        parts = [segment.vector for segment in encoder.iter_segments(clip, segment_seconds=fourth)]
        wanted = {"second": (1.0, 2.0), "half": (1.8, 4.0), "within": (2.2, 2.4), "after": (9.0, 10.0)}
        lines = [
            {"video": "a.mp4", "start": a * fourth, "end": b * fourth, "text": name, "id": name, "source": "title"}
            for name, (a, b) in wanted.items()
        ]
        for line in lines:
            del line["id"]  # by the video's name
        pairs = write_pairs(tmp_path / "pairs.jsonl", lines)
        report = embed_from_store(pairs, tmp_path / "cache", encoder.encoder, store, progress=False)
        cached = load_pairs(tmp_path / "cache")
        np.testing.assert_allclose(cached.video[0], parts[1], atol=1e-6)
        np.testing.assert_allclose(cached.video[1], unit(parts[2] + parts[3]), atol=1e-6)
        np.testing.assert_allclose(cached.video[2], parts[2], atol=1e-6)
        assert [failed.reason.partition(" of it")[0][:32] for failed in report.failures] == [
            "the collection has no segment fr"
        ]
        assert [SOURCES[code] for code in cached.marks.sources] == ["title"] * 3

    def test_an_own_id_names_the_segment(self, tmp_path, tiny_clip):
        clip = write_clip(tmp_path / "a.mp4", [picture(i) for i in range(40)])
        encoder = VideoEncoder.from_pretrained(tiny_clip, frames=FRAMES, device="cpu")
        store = MemoryStore()
        ingest(store, [clip], encoder, segment_seconds=0.5, progress=False)
        from dits_adapter.stores.requests import ReadRequest

        segments = list(store.read(ReadRequest(vectors=True)))
        lines = [
            {
                "video": str(clip),
                "start": segment.payload["start"],
                "end": segment.payload["end"],
                "id": str(segment.id),
                "text": "t",
                "source": "feedback",
            }
            for segment in segments
        ]
        pairs = write_pairs(tmp_path / "pairs.jsonl", lines)
        embed_from_store(pairs, tmp_path / "cache", encoder.encoder, store, progress=False)
        cached = load_pairs(tmp_path / "cache")
        assert list(cached.video_ids) == [str(segment.id) for segment in segments]
        np.testing.assert_allclose(cached.video, [segment.vector for segment in segments], atol=1e-6)
        assert len(cached.groups) == 1  # all of one file
