"""Shards of one run on several machines, and the cache that they make together."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dits_adapter.cli import main
from dits_adapter.data.cache import EmbeddingCache
from dits_adapter.data.merge import merge_caches
from dits_adapter.errors import DITSError, InputError
from tests.data.fakes import FakeEncoder, contents, run, write_pairs


@pytest.fixture
def parts(fake_pairs: Path, tmp_path: Path) -> list[Path]:
    """Three shards of eleven videos, of which two are broken, in caches of their own."""
    folders = [tmp_path / f"part-{number}" for number in (1, 2, 3)]
    decoded = []
    for number, folder in enumerate(folders, 1):
        encoder = FakeEncoder()
        run(fake_pairs, folder, encoder, shard=(number, 3))
        decoded += encoder.decoded
    assert sorted(decoded) == sorted(f"{n}.mp4" for n in range(11))  # each by one machine
    return folders


def test_the_merged_cache_is_that_of_one_machine_byte_for_byte(parts, fake_pairs, tmp_path):
    expected = run(fake_pairs, tmp_path / "whole")
    cache = merge_caches(parts[::-1], tmp_path / "merged")
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
    assert (len(cache.text), len(cache.video), cache.failures) == (
        expected.texts,
        expected.videos,
        expected.failures,
    )
    merge_caches(parts, tmp_path / "merged")  # again, in its place
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")


def test_a_shard_says_what_it_holds_and_goes_on_where_it_stopped(parts, fake_pairs, tmp_path):
    encoder = FakeEncoder()
    report = run(fake_pairs, parts[0], encoder, shard=(1, 3))
    assert (encoder.decoded, report.new_videos, report.videos) == ([], 0, 5)
    assert report.skipped_texts == 0
    with pytest.raises(DITSError, match="is not finished"):
        EmbeddingCache(parts[0])
    with pytest.raises(InputError, match="make 4 shards; for shard 5 of 9 there is none"):
        run(fake_pairs, tmp_path / "none", shard=(5, 9))
    with pytest.raises(InputError, match=r"shard is 4/3; it is I/N"):
        run(fake_pairs, tmp_path / "none", shard=(4, 3))


def test_repaired_videos_of_a_part_are_taken(parts, fake_pairs, tmp_path):
    repaired = tmp_path / "repaired"
    shutil.copytree(parts[1], repaired)
    (tmp_path / "4.mp4").write_text("video 4")
    run(fake_pairs, repaired, shard=(2, 3), retry_failed=True)
    for order in ([*parts, repaired], [repaired, *parts]):
        cache = merge_caches(order, tmp_path / "merged")
        assert ([failed.id for failed in cache.failures], "clip-4" in list(cache.ids)) == (["clip-7"], True)


def test_what_does_not_fit_together_is_refused(parts, tmp_path, capsys):
    other = run(write_pairs(tmp_path / "other.jsonl", [{"video": "1.mp4", "text": "a"}]), tmp_path / "other")
    assert other.videos == 1
    with pytest.raises(
        DITSError, match=r"1 of 3 shards of texts are in none of these caches; first texts 15 to 29"
    ):
        merge_caches([parts[0], parts[2]], tmp_path / "merged")
    with pytest.raises(DITSError, match=r"other: was made from other pairs than .*part-1"):
        merge_caches([parts[0], tmp_path / "other"], tmp_path / "merged")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(InputError, match="full: holds something else than a cache"):
        merge_caches(parts, tmp_path / "full")
    next(parts[2].glob("videos-*")).write_bytes(b"")
    assert main(["merge", *map(str, parts), "--out", str(tmp_path / "merged")]) == 1
    assert "is truncated, 0 of" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()


def test_the_command_joins_what_embed_wrote(parts, tmp_path, capsys):
    assert main(["merge", *map(str, parts), "--out", str(tmp_path / "merged")]) == 3
    assert "33 texts and 9 videos are in" in capsys.readouterr().out
