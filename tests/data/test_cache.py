"""Caches on disk: damage, other writers, and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dits_adapter.data import _shards
from dits_adapter.data._cache_index import CacheIndex, read_index
from dits_adapter.data.pairs import load_pairs
from dits_adapter.errors import (
    DITSError,
    SpaceMismatchError,
)
from tests.data.fakes import FRAMES, WIDTH, FakeEncoder, contents, run


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
            (lambda index: "{", "is not JSON .* damaged after it was written"),
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
        with pytest.raises(SpaceMismatchError, match=r"the cache .* goes with texts of fake-0 .* fake-1"):
            run(fake_pairs, cache, FakeEncoder(seed=1))
        (tmp_path / "other.jsonl").write_text(fake_pairs.read_text().replace("text 3", "text three"))
        with pytest.raises(DITSError, match="was begun from other pairs"):
            run(tmp_path / "other.jsonl", cache)
        with pytest.raises(DITSError, match=r"holds no cache but 0\.mp4"):
            run(fake_pairs, tmp_path)
        assert contents(cache) == before

    def test_two_writers_do_not_meet(self, fake_pairs, tmp_path):
        class Curious(FakeEncoder):
            def iter_segments(self, paths, **options):
                with pytest.raises(DITSError, match="another process is writing"):
                    run(fake_pairs, tmp_path / "cache")
                return super().iter_segments(paths, **options)

        assert run(fake_pairs, tmp_path / "cache", Curious()).videos == 9
        assert not (tmp_path / "cache" / ".lock").exists()


MEMORY = """
import resource, sys
import numpy as np
from dits_adapter.data import cache_writer
from dits_adapter.data.cache import EmbeddingCache
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

vectors(cache_writer.SHARD_VECTORS)
before = peak()
writer = cache_writer.CacheWriter(sys.argv[1], space=fake_space(width=width).with_frames(frames),
    source="made up", texts=texts, videos=videos, frames=frames, id_bytes=5)
with writer:
    for span in writer.index.texts.spans():
        writer.write_texts(span, vectors(len(span)), np.array(span) % videos)
    for span in writer.index.videos.spans():
        f = vectors(len(span), frames)
        writer.write_videos(span, span, [str(n) for n in span], vectors(len(span)), f)
written = peak()
opened = EmbeddingCache(sys.argv[1])
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
    assert reading < 2 * _shards.MAPPED + 16
