"""The embedding cache: real clips in, pairs out; killed, mended, damaged; vectors from files and from Qdrant."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException

from dits_adapter.cli import main
from dits_adapter.data import cache as cache_module
from dits_adapter.data import cache_writer, numpy_files, parquet_files
from dits_adapter.data.cache import EmbeddingCache, Rows
from dits_adapter.data.cache_index import CacheIndex, read_index
from dits_adapter.data.cache_writer import CacheWriter
from dits_adapter.data.embed import embed, embed_from_qdrant
from dits_adapter.data.import_vectors import import_vectors
from dits_adapter.data.pairs import Pairs, load_pairs
from dits_adapter.data.pairs_file import PairsFile
from dits_adapter.encoders import Encoder, load_encoder
from dits_adapter.errors import (
    DITSError,
    InputError,
    MissingExtraError,
    SpaceMismatchError,
    StoreError,
    VideoError,
)
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.qdrant.store import QdrantStore
from dits_adapter.video.encoder import VideoEncoder
from tests.stores.fakes import fake_space, unit
from tests.video.clips import picture, write_clip

WIDTH, FRAMES = 8, 4


def write_pairs(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- Fakes: what embedding does with an encoder, without a decoder or a model --------------------------------


def vector_of(name: str, norm: float = 1.0) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return norm * unit(np.random.default_rng(seed).normal(size=WIDTH))


class FakeTexts:
    """A text's vector follows from its characters."""

    width = WIDTH
    name = "fake-0"

    def __init__(self) -> None:
        self.read: list[str] = []

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.read += texts
        return np.stack([vector_of(text, 7.0) for text in texts])


class FakeEncoder:
    """A "video" is a file whose text names its vector; `broken…` cannot be read."""

    def __init__(self, seed: int = 0) -> None:
        self.space = fake_space(seed)
        self.encoder = FakeTexts()
        self.decoded: list[str] = []

    def iter_segments(
        self, paths: Sequence[str], *, on_error: Callable[[VideoError], object]
    ) -> Iterator[SimpleNamespace]:
        for path in paths:
            self.decoded.append(Path(path).name)
            content = Path(path).read_text() if Path(path).exists() else "broken: no such file"
            if content.startswith("broken"):
                on_error(VideoError(path, content))
            else:
                frames = np.stack([vector_of(f"{content} {n}") for n in range(FRAMES)])
                yield SimpleNamespace(path=path, vector=unit(frames.mean(axis=0)), frame_vectors=frames)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 15 texts, and of 3 videos with 4 frames each."""
    monkeypatch.setattr(cache_writer, "SHARD_VECTORS", 15)


@pytest.fixture
def fake_pairs(tmp_path: Path, small_shards: None) -> Path:
    """Eleven fake videos with 41 texts; videos 4 and 7, with 4 texts each, are broken."""
    for n in range(11):
        (tmp_path / f"{n}.mp4").write_text("broken: no frames" if n in (4, 7) else f"video {n}")
    texts = {n: [f"text {n} {i}" for i in range(1 + n % 3 * 3)] for n in range(11)}
    lines = [{"video": f"{n}.mp4", "text": texts[n], "id": f"clip-{n}"} for n in range(11)]
    return write_pairs(tmp_path / "pairs.jsonl", lines)


def run(pairs: Path, out: Path, encoder: FakeEncoder | None = None, **options: Any) -> Any:
    return embed(pairs, out, encoder or FakeEncoder(), progress=False, **options)  # type: ignore[arg-type]


# --- PAIRS.jsonl --------------------------------------------------------------------------------------------


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
            ('{"video": "a.mp4", "text": ["a", 3]}', '"text" must be'),
            ('{"video": "a.mp4", "text": ["a", " "]}', '"text" is empty'),
            ('{"video": "a.mp4", "text": "\\ud800"}', "surrogates not allowed"),
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


# --- Rows ---------------------------------------------------------------------------------------------------


def sharded(sizes: Sequence[int], width: int = 3) -> tuple[Rows, np.ndarray]:
    """Rows in shards of the given sizes, and the same as one array."""
    whole = np.random.default_rng(0).normal(size=(sum(sizes), width)).astype(np.float32)
    starts = np.cumsum([0, *sizes])
    shards = [whole[a:b] for a, b in pairwise(starts)]
    return Rows(shards.__getitem__, starts[:-1], np.arange(len(whole)), (width,), np.float32), whole


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.data())
def test_rows_are_indexed_as_an_array_is(sizes, data):
    rows, whole = sharded(sizes)
    n = len(whole)
    assert rows.shape == whole.shape
    np.testing.assert_array_equal(np.asarray(rows), whole)
    chosen = np.array(data.draw(st.lists(st.integers(-n, n - 1), max_size=8) if n else st.just([])), np.int64)
    edge = st.none() | st.integers(-8, 8)
    start, stop, step = data.draw(st.tuples(edge, edge, st.sampled_from([None, 1, 2, -1])))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    for key in (chosen, chosen.reshape(1, -1), slice(start, stop, step), mask, *chosen[:1].tolist()):
        np.testing.assert_array_equal(rows[key], whole[key])
    view = rows.select(chosen)
    np.testing.assert_array_equal(np.asarray(view), whole[chosen])
    np.testing.assert_array_equal(np.asarray(view.select(np.arange(len(chosen))[::-1])), whole[chosen][::-1])


def test_rows_refuse_what_an_array_refuses():
    rows, _ = sharded([2, 3])
    with pytest.raises(IndexError):
        rows[5]
    with pytest.raises(ValueError, match="without a copy"):
        rows.__array__(copy=False)
    assert np.asarray(rows, np.float64).dtype == np.float64


# --- Embedding ----------------------------------------------------------------------------------------------


class TestEmbed:
    def test_real_clips_give_what_the_encoders_give(self, tmp_path, tiny_clip, small_shards):
        for n in range(7):
            write_clip(tmp_path / f"{n}.mp4", [picture(20 * n + i) for i in range(15)])
        (tmp_path / "5.mp4").write_bytes(b"")
        texts = {n: [f"clip {n}", f"again {n}"][: 1 + n % 2] for n in range(7)}
        write_pairs(tmp_path / "pairs.jsonl", [{"video": f"{n}.mp4", "text": texts[n]} for n in range(7)])
        encoder = VideoEncoder.from_pretrained(tiny_clip, frames=FRAMES)

        report = embed(tmp_path / "pairs.jsonl", tmp_path / "cache", encoder, progress=False)

        assert (report.texts, report.videos, report.set_aside) == (8, 6, 2)
        assert [(broken.id, broken.reason) for broken in report.failures] == [("5.mp4", "is empty (0 bytes)")]
        assert "5.mp4: is empty (0 bytes)" in str(report)
        pairs = load_pairs(tmp_path / "cache")
        good = [0, 1, 2, 3, 4, 6]
        assert list(pairs.video_ids) == [f"{n}.mp4" for n in good]
        assert pairs.space == encoder.space
        expected = [encoder.encode_video(tmp_path / f"{n}.mp4") for n in good]
        np.testing.assert_allclose(pairs.video, [video.vector for video in expected], atol=1e-5)
        assert pairs.frames is not None
        np.testing.assert_allclose(pairs.frames[:], [video.frame_vectors for video in expected], atol=1e-5)
        described = [(row, text) for row, n in enumerate(good) for text in texts[n]]
        assert pairs.labels.tolist() == [row for row, _ in described]
        raw = encoder.encoder.embed_texts([text for _, text in described]).numpy()
        np.testing.assert_allclose(pairs.text, raw, atol=1e-4)
        assert abs(np.linalg.norm(pairs.text, axis=1) - 1).min() > 0.1  # not normalized

    def test_a_second_run_embeds_nothing(self, fake_pairs, tmp_path):
        first = run(fake_pairs, tmp_path / "cache")
        before, encoder = contents(tmp_path / "cache"), FakeEncoder()
        second = run(fake_pairs, tmp_path / "cache", encoder)
        assert (encoder.decoded, encoder.encoder.read) == ([], [])
        assert (first.new_texts, first.new_videos, second.new_texts, second.new_videos) == (41, 9, 0, 0)
        assert (first.texts, first.videos) == (second.texts, second.videos)
        assert contents(tmp_path / "cache") == before

    def test_mended_videos_are_taken_in_on_demand(self, fake_pairs, tmp_path):
        run(fake_pairs, tmp_path / "cache")
        (tmp_path / "4.mp4").write_text("video 4")
        encoder = FakeEncoder()
        run(fake_pairs, tmp_path / "cache", encoder)
        assert encoder.decoded == []
        report = run(fake_pairs, tmp_path / "cache", encoder, retry_failed=True)
        assert encoder.decoded == ["4.mp4", "7.mp4"]
        assert encoder.encoder.read == []
        assert [broken.id for broken in report.failures] == ["clip-7"]
        run(fake_pairs, tmp_path / "fresh")
        assert contents(tmp_path / "cache") == contents(tmp_path / "fresh")

    def test_not_one_video_is_an_error_and_can_be_mended(self, fake_pairs, tmp_path):
        with pytest.raises(DITSError, match=r"not one of its 11 videos .* clip-0: broken: no such file"):
            run(fake_pairs, tmp_path / "cache", videos=tmp_path / "elsewhere")
        assert run(fake_pairs, tmp_path / "cache", retry_failed=True).videos == 9

    def test_vectors_that_are_no_vectors_stop_the_run(self, fake_pairs, tmp_path, monkeypatch):
        encoder = FakeEncoder()
        monkeypatch.setattr(encoder.encoder, "embed_texts", lambda texts: np.full((len(texts), WIDTH), np.nan))
        with pytest.raises(InputError, match="text 0 has NaN or infinite values"):
            run(fake_pairs, tmp_path / "cache", encoder)

    def test_command(self, fake_pairs, tmp_path, tiny_clip, capsys):
        write_clip(tmp_path / "good.mp4", [picture(n) for n in range(15)])
        lines = [{"video": "good.mp4", "text": "a b"}, {"video": "none.mp4", "text": "c"}]
        pairs = write_pairs(tmp_path / "pairs.jsonl", lines)
        command = ["embed", str(pairs), "--encoder", str(tiny_clip), "--out", str(tmp_path / "cache")]
        assert main(command) == 3
        output = capsys.readouterr().out
        assert "videos  1, 1 of them new" in output
        assert "none.mp4: no such file" in output
        write_clip(tmp_path / "none.mp4", [picture(n) for n in range(15)])
        assert main([*command, "--retry-failed"]) == 0
        assert len(load_pairs(tmp_path / "cache")) == 2
        pairs.write_text("nonsense\n")
        assert main(command) == 1
        assert "line 1: is not JSON" in capsys.readouterr().err


# --- Killed -------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a death between two system calls."""


def test_killed_at_any_moment_the_next_run_ends_like_a_clean_one(fake_pairs, tmp_path, monkeypatch):
    run(fake_pairs, tmp_path / "clean")
    expected = contents(tmp_path / "clean")
    replace, moment = os.replace, 0
    while True:
        left = moment

        def dying(source: Path, target: Path) -> None:
            nonlocal left
            left -= 1
            if left == -1:  # before a file gets its name …
                raise Killed
            replace(source, target)
            left -= 1
            if left == -1:  # … and after
                raise Killed

        cache = tmp_path / f"cache-{moment}"
        monkeypatch.setattr(os, "replace", dying)
        try:
            run(fake_pairs, cache)
        except Killed:
            moment += 1
        else:
            break
        finally:
            monkeypatch.setattr(os, "replace", replace)
        begun = len([name for name in contents(cache) if name.startswith("videos")])
        encoder = FakeEncoder()
        run(fake_pairs, cache, encoder)
        assert contents(cache) == expected
        assert len(encoder.decoded) <= 11 - 3 * max(0, begun - 1)  # at most one shard was done in vain
    assert moment == 2 * (
        1 + 2 * (3 + 4)
    )  # the first index; three shards of texts and four of videos, each with one


def test_killed_while_a_mended_video_is_taken_in(fake_pairs, tmp_path, monkeypatch):
    run(fake_pairs, tmp_path / "cache")
    (tmp_path / "4.mp4").write_text("video 4")
    run(fake_pairs, tmp_path / "clean")
    replace = os.replace

    def dying(source: Path, target: Path) -> None:
        replace(source, target)
        if Path(target).name.startswith("videos"):
            raise Killed

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(Killed):
        run(fake_pairs, tmp_path / "cache", retry_failed=True)
    monkeypatch.setattr(os, "replace", replace)
    run(fake_pairs, tmp_path / "cache")
    assert contents(tmp_path / "cache") == contents(tmp_path / "clean")


def test_sigkill_while_real_clips_are_embedded(tmp_path, tiny_clip, small_shards):
    for n in range(40):
        write_clip(tmp_path / f"{n}.mp4", [picture(6 * n + i) for i in range(15)])
    pairs = write_pairs(tmp_path / "pairs.jsonl", [{"video": f"{n}.mp4", "text": f"clip {n}"} for n in range(40)])
    options = [
        "embed",
        str(pairs),
        "--encoder",
        str(tiny_clip),
        "--frames",
        str(FRAMES),
        "--device",
        "cpu",
        "--out",
    ]
    program = (
        "from dits_adapter.data import cache_writer; cache_writer.SHARD_VECTORS = 15; "
        "from dits_adapter.cli import main; raise SystemExit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, *options, str(tmp_path / "cache")], stderr=subprocess.DEVNULL
    )
    while not (tmp_path / "cache" / "videos-00002.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert not (tmp_path / "cache" / "videos-00013.safetensors").exists()
    with pytest.raises(DITSError, match=r"is not finished, \d+ of 14 shards of videos"):
        load_pairs(tmp_path / "cache")
    for out in ("cache", "clean"):
        assert main([*options, str(tmp_path / out)]) == 0
    assert contents(tmp_path / "cache") == contents(tmp_path / "clean")
    assert len(load_pairs(tmp_path / "cache")) == 40


# --- Damaged ------------------------------------------------------------------------------------------------


def flip(path: Path, place: int) -> None:
    """Change one byte of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def same_index(folder: Path, index: CacheIndex) -> bool:
    try:
        return read_index(folder) == index
    except DITSError:
        return False


class TestDamage:
    @pytest.fixture
    def cache(self, fake_pairs: Path, tmp_path: Path) -> Path:
        run(fake_pairs, tmp_path / "cache")
        return tmp_path / "cache"

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda path: path.write_bytes(path.read_bytes()[:-1]), "videos-00001.safetensors: is truncated, "),
            (
                lambda path: path.write_bytes(path.read_bytes() + b"x"),
                "videos-00001.safetensors: has .* were written",
            ),
            (lambda path: path.unlink(), "videos-00001.safetensors: this shard of the cache is missing"),
        ],
    )
    def test_a_shard_of_another_size_is_refused_at_once_and_written_again(
        self, cache, fake_pairs, tmp_path, damage, message
    ):
        whole = contents(cache)
        damage(cache / "videos-00001.safetensors")
        with pytest.raises(DITSError, match=message):
            load_pairs(cache)
        encoder = FakeEncoder()
        run(fake_pairs, cache, encoder)
        assert encoder.decoded == ["3.mp4", "4.mp4", "5.mp4"]
        assert contents(cache) == whole

    @pytest.mark.parametrize("name", ["texts-00000.safetensors", "index.json"])
    def test_no_changed_byte_goes_unnoticed(self, cache, name):
        path, index = cache / name, read_index(cache)
        for place in np.linspace(0, path.stat().st_size - 1, 60).astype(int).tolist():
            flip(path, place)
            if name != "index.json" or not same_index(cache, index):  # the last of too many digits may change
                with pytest.raises(DITSError, match=name):
                    assert load_pairs(cache).text is None
            flip(path, place)

    def test_damage_is_found_where_it_is_read_and_not_before(self, cache):
        middle = (cache / "videos-00002.safetensors").stat().st_size // 2
        flip(cache / "videos-00002.safetensors", middle)  # in the frames
        flip(cache / "videos-00003.safetensors", -1)  # in the ids
        pairs = load_pairs(cache)
        assert (len(pairs.text), len(pairs.video)) == (33, 9)
        assert pairs.frames[:5].shape == (5, FRAMES, WIDTH)
        assert pairs.video_ids[:6][-1] == "clip-6"
        with pytest.raises(
            DITSError, match=r"videos-00002.* 'frames' was changed or damaged after it was written"
        ):
            np.asarray(pairs.frames)
        with pytest.raises(DITSError, match=r"videos-00003.* 'id' was changed or damaged after it was written"):
            list(pairs.video_ids)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda index: "{", "is not valid JSON"),
            (lambda index: "[]", "is not the index of a cache"),
            (lambda index: json.dumps(index | {"format_version": 2}), "has format version 2, this release reads"),
            (lambda index: json.dumps(index | {"frames": -1}), "is invalid"),
            (lambda index: json.dumps(index | {"failures": []}), "was changed or damaged"),
        ],
    )
    def test_an_index_is_refused(self, cache, fake_pairs, change, message):
        index = json.loads((cache / "index.json").read_text())
        (cache / "index.json").write_text(change(index))
        with pytest.raises(DITSError, match=message):
            load_pairs(cache)
        with pytest.raises(DITSError, match=message):
            run(fake_pairs, cache)

    def test_no_cache_is_refused(self, tmp_path):
        with pytest.raises(DITSError, match="no such file or folder"):
            load_pairs(tmp_path / "none")
        with pytest.raises(DITSError, match=r"holds no index\.json"):
            load_pairs(tmp_path)

    def test_a_cache_of_another_space_or_other_pairs_is_not_written_to(self, cache, fake_pairs, tmp_path):
        before = contents(cache)
        with pytest.raises(
            SpaceMismatchError, match=r"the cache .* belongs to the embedding space fake-0 .* fake-1"
        ):
            run(fake_pairs, cache, FakeEncoder(seed=1))
        (tmp_path / "other.jsonl").write_text(fake_pairs.read_text().replace("text 3", "text three"))
        with pytest.raises(DITSError, match="was begun from other pairs"):
            run(tmp_path / "other.jsonl", cache)
        with pytest.raises(DITSError, match=r"holds no cache but 0\.mp4"):
            run(fake_pairs, tmp_path)
        assert contents(cache) == before

    def test_two_writers_do_not_meet(self, fake_pairs, tmp_path):
        class Curious(FakeEncoder):
            def iter_segments(self, paths, *, on_error):
                with pytest.raises(DITSError, match="another process is writing"):
                    run(fake_pairs, tmp_path / "cache")
                return super().iter_segments(paths, on_error=on_error)

        assert run(fake_pairs, tmp_path / "cache", Curious()).videos == 9
        assert not (tmp_path / "cache" / ".lock").exists()


# --- Memory -------------------------------------------------------------------------------------------------

MEMORY = """
import resource, sys
import numpy as np
from dits_adapter.data import cache_writer
from dits_adapter.data.pairs import load_pairs
from tests.stores.fakes import fake_space

cache_writer.SHARD_VECTORS = 1024
texts, videos, frames, width = 40_000, 10_000, 4, 256
rng = np.random.default_rng(0)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def vectors(*shape):
    v = rng.random((*shape, width), np.float32)
    return v / np.linalg.norm(v, axis=-1, keepdims=True)

vectors(cache.SHARD_VECTORS)
before = peak()
writer = cache.CacheWriter(sys.argv[1], space=fake_space(width=width).model_copy(update={"frames": frames}),
    source="made up", texts=texts, videos=videos, frames=frames, id_bytes=5)
with writer:
    for span in writer.index.texts.spans():
        writer.write_texts(span, vectors(len(span)), np.array(span) % videos)
    for span in writer.index.videos.spans():
        f = vectors(len(span), frames)
        writer.write_videos(span, span, [str(n) for n in span], vectors(len(span)), f)
written = peak()
opened = cache.EmbeddingCache(sys.argv[1])
total = 0.0
for rows in (opened.text, opened.video, opened.frames):
    for start in range(0, len(rows), 512):
        total += float(rows[start : start + 512].sum())
    total += float(rows[rng.permutation(len(rows))[:512]].sum())
assert len(set(opened.ids)) == videos
train, held = load_pairs(sys.argv[1]).split(0.5, 0)
print(written - before, peak() - before)
"""


def test_memory_is_that_of_a_few_shards(tmp_path):
    found = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "cache")], check=True, capture_output=True, text=True
    )
    writing, reading = map(float, found.stdout.split())  # MiB, as are the shards
    assert sum(map(len, contents(tmp_path / "cache").values())) > 85 * 2**20
    assert writing < 8
    assert reading < 2 * cache_module.MAPPED + 16


# --- Pairs of both forms ------------------------------------------------------------------------------------


def test_pairs_of_a_cache_part_save_and_load_like_pairs_in_memory(fake_pairs, tmp_path):
    run(fake_pairs, tmp_path / "cache")
    cached = load_pairs(tmp_path / "cache")
    cache = EmbeddingCache(tmp_path / "cache")
    plain = Pairs(
        np.asarray(cache.text),
        np.asarray(cache.video),
        cache.labels,
        cache.space,
        tuple(cache.ids),
        np.asarray(cache.frames),
    )
    plain.save(tmp_path / "pairs.safetensors")
    for left, right in zip(
        (cached, *cached.split(0.4, 3), cached.split(0.4, 3)[0].split(0.5, 1)[1]),
        (
            load_pairs(tmp_path / "pairs.safetensors"),
            *plain.split(0.4, 3),
            plain.split(0.4, 3)[0].split(0.5, 1)[1],
        ),
        strict=True,
    ):
        assert len(left) == len(right) > 0
        for name in ("text", "video", "labels", "frames"):
            np.testing.assert_array_equal(np.asarray(getattr(left, name)), np.asarray(getattr(right, name)))
        assert list(left.video_ids) == list(right.video_ids)
        assert left.space == right.space


def test_pairs_refuse_frames_that_do_not_fit():
    text, video = unit(np.eye(2, WIDTH)), unit(np.eye(2, WIDTH))
    with pytest.raises(InputError, match=r"frame vectors have shape \(3, 4, 8\), not \(2, k, 8\)"):
        Pairs(text, video, np.arange(2), fake_space(), frames=np.ones((3, FRAMES, WIDTH), np.float32))
    frames = np.ones((2, FRAMES, WIDTH), np.float32)
    frames[1, 2, 3] = np.nan
    with pytest.raises(InputError, match="frame vectors: row 1 holds NaN"):
        Pairs(text, video, np.arange(2), fake_space(), frames=frames)


# --- Vectors that somebody has ------------------------------------------------------------------------------


@pytest.fixture
def clip(tiny_clip: Path) -> Encoder:
    return load_encoder(tiny_clip, device="cpu")


@dataclass
class Own:
    """Vectors of 40 videos and 90 texts in files: texts as the tiny CLIP embeds them, videos near their texts."""

    folder: Path
    captions: list[str]
    text: np.ndarray
    labels: np.ndarray
    video: np.ndarray
    frames: np.ndarray
    ids: list[str]

    def save(self) -> dict[str, Path]:
        """Write the NumPy files; return the arguments of `import_vectors`."""
        for name in ("text", "labels", "video", "frames"):
            np.save(self.folder / f"{name}.npy", getattr(self, name))
        for name in ("ids", "captions"):
            (self.folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in getattr(self, name)))
        files = {"texts": "text.npy", "videos": "video.npy", "labels": "labels.npy", "frames": "frames.npy"}
        return {
            name: self.folder / file
            for name, file in {**files, "ids": "ids.txt", "captions": "captions.txt"}.items()
        }

    def save_parquet(self, **changes: Any) -> dict[str, Path]:
        """Write the two Parquet files with some columns changed; return the arguments of `import_vectors`."""
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        columns = {
            "texts": {
                "video_id": [self.ids[row] for row in self.labels],
                "vector": self.text.tolist(),
                "text": self.captions,
            },
            "videos": {"video_id": self.ids, "vector": list(self.video), "frames": self.frames.tolist()},
        }
        for change, value in changes.items():
            table, name = change.split("_", 1)
            columns[table][name] = value
        for table, content in columns.items():
            kept = {name: value for name, value in content.items() if value is not None}
            parquet.write_table(pyarrow.table(kept), self.folder / f"{table}.parquet", row_group_size=7)
        return {table: self.folder / f"{table}.parquet" for table in columns}


@pytest.fixture
def own(tmp_path: Path, clip: Encoder) -> Own:
    rng = np.random.default_rng(0)
    labels = np.sort(np.append(np.arange(40), rng.integers(0, 40, 50)))
    captions = [f"text {n} of video {label}" for n, label in enumerate(labels)]
    text = clip.embed_texts(captions)
    first = text[np.unique(labels, return_index=True)[1]]
    video = (unit(first) + 0.05 * rng.normal(size=first.shape)) * rng.uniform(1, 3, (40, 1))
    frames = unit(rng.normal(size=(40, FRAMES, clip.width)))
    folder = tmp_path / "own"
    folder.mkdir()
    return Own(folder, captions, text, labels, video, frames, [f"v{n}" for n in range(40)])


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch, small_shards: None) -> None:
    """Blocks of seven rows, smaller and larger than shards."""
    monkeypatch.setattr(numpy_files, "BLOCK", 7)
    monkeypatch.setattr(parquet_files, "BLOCK", 7)


@pytest.mark.filterwarnings("error")
class TestImport:
    @pytest.mark.parametrize("form", ["numpy", "parquet"])
    def test_what_is_read_back_is_what_was_given(self, own, clip, tmp_path, small_blocks, form):
        files = own.save() if form == "numpy" else own.save_parquet()
        report = import_vectors(
            **files, out=tmp_path / "cache", encoder=clip, frames_sampled=FRAMES, progress=False
        )
        assert (report.texts, report.videos, report.new_texts, report.failures) == (90, 40, 90, [])
        pairs = load_pairs(tmp_path / "cache")
        np.testing.assert_array_equal(pairs.text, own.text)
        np.testing.assert_array_equal(pairs.labels, own.labels)
        np.testing.assert_allclose(pairs.video, unit(own.video), atol=1e-7)
        np.testing.assert_array_equal(pairs.frames[:], own.frames)
        assert list(pairs.video_ids) == own.ids
        assert pairs.space == EmbeddingSpace.of(clip, frames=FRAMES)
        again = import_vectors(
            **files, out=tmp_path / "cache", encoder=clip, frames_sampled=FRAMES, progress=False
        )
        assert (again.new_texts, again.new_videos) == (0, 0)

    def test_a_killed_import_goes_on(self, own, clip, tmp_path, small_blocks, monkeypatch):
        files = own.save()
        import_vectors(**files, out=tmp_path / "clean", encoder=clip, progress=False)
        write, written = CacheWriter._write, []

        def dying(self: CacheWriter, kind: Any, span: range, *rest: Any) -> None:
            if (kind, span.start) == ("videos", 9):
                raise Killed
            written.append((kind, span.start))
            write(self, kind, span, *rest)

        monkeypatch.setattr(CacheWriter, "_write", dying)
        with pytest.raises(Killed):
            import_vectors(**files, out=tmp_path / "cache", encoder=clip, progress=False)
        monkeypatch.setattr(CacheWriter, "_write", write)
        report = import_vectors(**files, out=tmp_path / "cache", encoder=clip, progress=False)
        assert (report.new_texts, report.new_videos) == (0, 40 - 9)
        assert contents(tmp_path / "cache") == contents(tmp_path / "clean")

    def test_the_least_that_can_be_given(self, own, clip, tmp_path):
        files = own.save()
        np.save(files["videos"], own.video[own.labels].astype(np.float16))
        with pytest.warns(UserWarning, match="without the texts themselves it cannot be checked"):
            import_vectors(files["texts"], files["videos"], tmp_path / "cache", clip, progress=False)
        pairs = load_pairs(tmp_path / "cache")
        assert pairs.labels.tolist() == list(range(90))
        assert pairs.video_ids[89] == "89"
        assert pairs.frames is None

    def test_another_encoder_is_caught_by_the_texts(self, own, tmp_path, other_clip):
        with pytest.raises(SpaceMismatchError, match=r"text 0 \('text 0 of video 0'\) is at cosine .* other-clip"):
            import_vectors(**own.save(), out=tmp_path / "cache", encoder=load_encoder(other_clip), progress=False)
        assert not (tmp_path / "cache").exists()

    def test_texts_in_another_order_are_caught(self, own, clip, tmp_path):
        own.captions.reverse()
        with pytest.raises(SpaceMismatchError, match="in another order than the texts"):
            import_vectors(**own.save(), out=tmp_path / "cache", encoder=clip, progress=False)

    def test_videos_that_have_nothing_to_do_with_the_texts_are_doubted(self, own, clip, tmp_path):
        own.video = np.random.default_rng(1).normal(size=own.video.shape)
        with pytest.warns(UserWarning, match="not sure that texts are nearer to their own videos"):
            import_vectors(**own.save(), out=tmp_path / "cache", encoder=clip, progress=False)

    def test_texts_that_were_normalized_are_remarked(self, own, clip, tmp_path):
        own.text = unit(own.text)
        with pytest.warns(UserWarning, match=r"norms of about 1, tiny-clip gives about .* input=raw"):
            import_vectors(**own.save(), out=tmp_path / "cache", encoder=clip, progress=False)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"text": np.ones((90, 5))}, r"text.npy: is float64 of shape \(90, 5\); floats of shape \(any, 32\)"),
            ({"text": np.ones((90, 32), int)}, "text.npy: is int64"),
            ({"text": np.array([{}])}, "text.npy: is no .npy array of numbers"),
            ({"labels": np.arange(89)}, r"labels.npy: .* shape \(90\) are expected"),
            ({"labels": np.full(90, 40)}, "text 0 belongs to video 40; there are 40"),
            ({"labels": np.full(90, -1)}, "text 0 belongs to video -1"),
            ({"frames": np.ones((39, FRAMES, 32))}, r"frames.npy: .* shape \(40, any, 32\)"),
            ({"ids": [f"v{n % 39}" for n in range(40)]}, "videos 0 and 39 have the same id, 'v0'"),
            ({"ids": ["", *map(str, range(39))]}, "video 0: the id '' is empty"),
            ({"ids": ["a"]}, "ids.txt: has 1 lines; 40 are expected"),
            ({"captions": ["a"] * 91}, "captions.txt: has 91 lines; 90 are expected"),
        ],
    )
    def test_files_that_do_not_fit(self, own, clip, tmp_path, change, message):
        for name, value in change.items():
            setattr(own, name, value)
        files = own.save()
        if "labels" in change:
            del files["captions"]
        with pytest.raises(InputError, match=message):
            import_vectors(**files, out=tmp_path / "cache", encoder=clip, progress=False)

    @pytest.mark.parametrize(
        ("name", "row", "value", "message"),
        [
            ("text", 45, np.nan, "text 45 has NaN or infinite values"),
            ("text", 45, 0, "text 45 has a zero vector"),
            ("video", 31, np.inf, "video 'v31' has NaN or infinite values"),
            ("video", 31, 0, "video 'v31' has a zero vector"),
            ("frames", 31, np.nan, "video 'v31' has NaN or infinite values"),
        ],
    )
    def test_vectors_that_are_no_vectors(self, own, clip, tmp_path, small_blocks, name, row, value, message):
        getattr(own, name)[row] = value
        files = own.save()
        del files["captions"]
        with pytest.raises(InputError, match=message):
            import_vectors(**files, out=tmp_path / "cache", encoder=clip, progress=False)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"videos_vector": None}, r"videos.parquet: has no column 'vector'; it has video_id, frames"),
            ({"videos_vector": [1.0] * 40}, "videos.parquet: vector is a column of double"),
            ({"videos_vector": [[1]] * 40}, "row 0: vector is missing or has length 1; 32 is expected"),
            ({"videos_vector": [[1] * 32] * 40}, "vector holds int64; floats are expected"),
            ({"videos_vector": [*[[1.0] * 32] * 30, None, *[[1.0] * 32] * 9]}, "row 30: vector is missing"),
            (
                {"videos_frames": [*[[[1.0] * 32] * 4] * 30, *[[[1.0] * 32] * 3] * 10]},
                "row 30: frames .* length 3; 4",
            ),
            (
                {"videos_frames": [*[[[1.0] * 32] * 4] * 39, [[1.0] * 32] * 3 + [[1.0]]]},
                "row 39: frames .* length 1; 32",
            ),
            ({"videos_video_id": ["v0"] * 40}, "videos 0 and 1 have the same id"),
            ({"videos_video_id": [*[f"v{n}" for n in range(39)], None]}, "row 39: video_id is None"),
            (
                {"texts_video_id": ["v0"] * 80 + ["w"] * 10},
                "texts.parquet, row 80: the video 'w' is not in .*videos.parq",
            ),
            ({"texts_text": [None] + ["a"] * 89}, "row 0: text is None"),
        ],
    )
    def test_columns_that_do_not_fit(self, own, clip, tmp_path, small_blocks, change, message):
        files = own.save_parquet(**({"texts_text": None} | change))
        with pytest.raises(InputError, match=message):
            import_vectors(**files, out=tmp_path / "cache", encoder=clip, progress=False)

    def test_files_of_other_kinds(self, own, clip, tmp_path, monkeypatch):
        files = own.save()
        with pytest.raises(InputError, match=r"none\.npy: cannot be read"):
            import_vectors(tmp_path / "none.npy", files["videos"], tmp_path / "cache", clip)
        with pytest.raises(InputError, match=r"two \.npy or two \.parquet files"):
            import_vectors(files["texts"], tmp_path / "videos.parquet", tmp_path / "cache", clip)
        with pytest.raises(InputError, match="say with labels which video"):
            import_vectors(files["texts"], files["videos"], tmp_path / "cache", clip)
        (tmp_path / "a.parquet").write_text("nonsense")
        with pytest.raises(InputError, match="in Parquet they are the columns"):
            import_vectors(tmp_path / "a.parquet", tmp_path / "a.parquet", tmp_path / "c", clip, ids=files["ids"])
        pytest.importorskip("pyarrow")
        with pytest.raises(InputError, match=r"a\.parquet: is no Parquet file"):
            import_vectors(tmp_path / "a.parquet", tmp_path / "a.parquet", tmp_path / "cache", clip)

    def test_parquet_without_pyarrow_names_the_extra(self, clip, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(MissingExtraError, match=r"pip install \"dits-adapter\[parquet\]\""):
            import_vectors(tmp_path / "a.parquet", tmp_path / "b.parquet", tmp_path / "cache", clip)

    def test_command(self, own, tiny_clip, tmp_path, capsys):
        files = own.save()
        options = [
            "--labels",
            files["labels"],
            "--captions",
            files["captions"],
            "--frame-vectors",
            files["frames"],
        ]
        command = ["import", files["texts"], files["videos"], *options, "--encoder", tiny_clip, "--frames", FRAMES]
        assert main([str(part) for part in [*command, "--out", tmp_path / "cache"]]) == 0
        assert "videos  40, 40 of them new" in capsys.readouterr().out
        assert load_pairs(tmp_path / "cache").space.frames == FRAMES


# --- Qdrant -------------------------------------------------------------------------------------------------


@pytest.fixture
def ingested(tmp_path: Path, tiny_clip: Path) -> tuple[QdrantStore, VideoEncoder, list[Path]]:
    """A collection of five real clips, ingested."""
    folder = tmp_path / "clips"
    folder.mkdir()
    clips = [write_clip(folder / f"{n}.mp4", [picture(40 * n + i) for i in range(15)]) for n in range(5)]
    encoder = VideoEncoder.from_pretrained(tiny_clip, frames=FRAMES, device="cpu")
    store = QdrantStore(QdrantClient(":memory:"))
    store.ingest(clips, encoder, progress=False)
    return store, encoder, clips


class TestQdrant:
    def test_gives_what_embedding_the_files_gives(self, ingested, tmp_path, small_shards):
        store, encoder, clips = ingested
        lines = [{"video": str(clip), "text": [f"clip {n}", f"again {n}"]} for n, clip in enumerate(clips)]
        embed(write_pairs(tmp_path / "files.jsonl", lines), tmp_path / "files", encoder, progress=False)
        ids = {record.path: record.video_id for record in store.records()}
        lines = [{"id": ids[str(clip)], "text": [f"clip {n}", f"again {n}"]} for n, clip in enumerate(clips)]
        pairs = write_pairs(tmp_path / "ids.jsonl", [*lines, {"id": str(uuid.uuid4()), "text": "deleted"}])

        report = embed_from_qdrant(pairs, tmp_path / "cache", encoder.encoder, store, progress=False)

        assert [broken.reason for broken in report.failures] == ["the collection has no such video"]
        found, expected = load_pairs(tmp_path / "cache"), load_pairs(tmp_path / "files")
        np.testing.assert_allclose(found.video, expected.video, atol=1e-6)
        np.testing.assert_allclose(found.frames[:], expected.frames[:], atol=1e-6)
        np.testing.assert_allclose(found.text, expected.text, atol=1e-4)
        assert (found.labels.tolist(), found.space) == (expected.labels.tolist(), expected.space)
        again = embed_from_qdrant(
            pairs, tmp_path / "cache", encoder.encoder, store, retry_failed=True, progress=False
        )
        assert (again.new_texts, again.new_videos) == (0, 0)

    def test_by_another_field_and_by_the_points_own_ids(self, ingested, tmp_path):
        store, encoder, clips = ingested
        points, _ = store.client.scroll(store.collection)
        for field, names in (("path", [str(clip) for clip in clips]), ("", [point.id for point in points])):
            pairs = write_pairs(tmp_path / f"{field}.jsonl", [{"id": name, "text": "a"} for name in names])
            out = tmp_path / f"cache-{field}"
            report = embed_from_qdrant(pairs, out, encoder.encoder, store, id_field=field, progress=False)
            assert (report.videos, report.failures) == (5, [])

    def test_several_points_of_one_video_are_named_one_by_one(self, ingested, tmp_path):
        store, encoder, clips = ingested
        segments = QdrantStore(store.client, "segments")
        segments.ingest(clips[:2], encoder, segment_seconds=0.2, progress=False)
        points, _ = store.client.scroll("segments")
        lines = [{"id": points[0].payload["video_id"], "text": "a"}]
        with pytest.raises(DITSError, match=r"3 points of the collection have this id \(segments\?\)"):
            embed_from_qdrant(
                write_pairs(tmp_path / "a.jsonl", lines), tmp_path / "a", encoder.encoder, segments, progress=False
            )
        pairs = write_pairs(tmp_path / "b.jsonl", [{"id": point.id, "text": "a"} for point in points])
        report = embed_from_qdrant(pairs, tmp_path / "b", encoder.encoder, segments, id_field="", progress=False)
        assert report.videos == len(points) == 6

    def test_another_encoder_is_refused(self, ingested, tmp_path, other_clip):
        store, _, _ = ingested
        pairs = write_pairs(tmp_path / "pairs.jsonl", [{"id": "a", "text": "a"}])
        with pytest.raises(
            SpaceMismatchError, match="the collection 'videos' belongs to the embedding space tiny-clip"
        ):
            embed_from_qdrant(pairs, tmp_path / "cache", load_encoder(other_clip), store, progress=False)

    def test_a_collection_of_somebody_else(self, clip, tmp_path):
        client = QdrantClient(":memory:")
        client.create_collection("mine", models.VectorParams(size=clip.width, distance=models.Distance.COSINE))
        vectors = unit(np.random.default_rng(0).normal(size=(3, clip.width)))
        client.upsert(
            "mine",
            [models.PointStruct(id=n, vector=vectors[n].tolist(), payload={"clip": 70 + n}) for n in range(3)],
        )
        pairs = write_pairs(tmp_path / "pairs.jsonl", [{"id": 70 + n, "text": f"text {n}"} for n in (2, 0)])
        with pytest.raises(StoreError, match="does not say which embedding space"):
            embed_from_qdrant(pairs, tmp_path / "cache", clip, QdrantStore(client, "mine", vector=""))
        space = EmbeddingSpace.of(clip)
        store = QdrantStore(client, "mine", space=space, vector="", trust_foreign=True)
        with pytest.warns(UserWarning, match="does not say which embedding space"):
            embed_from_qdrant(pairs, tmp_path / "cache", clip, store, id_field="clip", progress=False)
        found = load_pairs(tmp_path / "cache")
        np.testing.assert_allclose(found.video, vectors[[2, 0]], atol=1e-6)
        assert (list(found.video_ids), found.frames) == (["72", "70"], None)

    def test_a_server_that_goes_away_loses_nothing(self, ingested, tmp_path, monkeypatch, small_shards):
        store, encoder, _ = ingested
        lines = [{"id": record.video_id, "text": "a"} for record in store.records()]
        pairs, scroll = write_pairs(tmp_path / "pairs.jsonl", lines), store.client.scroll
        calls = iter([scroll])

        def failing(*args: Any, **options: Any) -> Any:
            try:
                return next(calls)(*args, **options)
            except StopIteration:
                raise ResponseHandlingException("connection refused") from None

        monkeypatch.setattr(store.client, "scroll", failing)
        with pytest.raises(StoreError, match=r"connection refused.* goes on from there"):
            embed_from_qdrant(pairs, tmp_path / "cache", encoder.encoder, store, progress=False)
        monkeypatch.setattr(store.client, "scroll", scroll)
        report = embed_from_qdrant(pairs, tmp_path / "cache", encoder.encoder, store, progress=False)
        assert (report.videos, report.new_videos) == (5, 2)

    def test_command(self, ingested, tmp_path, tiny_clip, capsys):
        _, encoder, clips = ingested
        with QdrantStore(tmp_path / "store") as store:
            store.ingest(clips, encoder, progress=False)
            lines = [{"id": record.video_id, "text": "a"} for record in store.records()]
        pairs = write_pairs(tmp_path / "pairs.jsonl", lines)
        command = ["embed", str(pairs), "--encoder", str(tiny_clip), "--out", str(tmp_path / "cache")]
        command += ["--store", str(tmp_path / "store")]
        assert main(command) == 0
        assert "videos  5, 5 of them new" in capsys.readouterr().out
        assert main([*command, "--videos", str(tmp_path)]) == 1
        assert "give one of them" in capsys.readouterr().err
