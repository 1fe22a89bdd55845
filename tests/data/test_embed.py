"""Embedding of pairs into a cache: real clips in, pairs out; killed and resumed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dits_adapter.cli import main
from dits_adapter.data import _fill
from dits_adapter.data.embed import embed
from dits_adapter.data.pairs import load_pairs
from dits_adapter.errors import (
    DITSError,
    InputError,
)
from dits_adapter.video.encoder import VideoEncoder
from tests.data.fakes import FRAMES, WIDTH, FakeEncoder, Killed, contents, run, write_pairs
from tests.video.clips import picture, write_clip


class TestEmbed:
    def test_real_clips_give_what_the_encoders_give(self, tmp_path, tiny_clip, small_shards):
        for n in range(7):
            write_clip(tmp_path / f"{n}.mp4", [picture(20 * n + i) for i in range(15)])
        (tmp_path / "5.mp4").write_bytes(b"")
        texts = {n: [f"clip {n}", f"again {n}"][: 1 + n % 2] for n in range(7)}
        write_pairs(tmp_path / "pairs.jsonl", [{"video": f"{n}.mp4", "text": texts[n]} for n in range(7)])
        encoder = VideoEncoder.from_pretrained(tiny_clip, frames=FRAMES)

        report = embed(tmp_path / "pairs.jsonl", tmp_path / "cache", encoder, progress=False)

        assert (report.texts, report.videos, report.skipped_texts) == (8, 6, 2)
        assert [(failed.id, failed.reason) for failed in report.failures] == [("5.mp4", "is empty (0 bytes)")]
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
        raw = encoder.encoder.embed_texts([text for _, text in described])
        np.testing.assert_allclose(pairs.text, raw, atol=1e-4)
        assert abs(np.linalg.norm(pairs.text, axis=1) - 1).min() > 0.1  # not normalized

    def test_texts_that_are_cut_are_said_once(self, fake_pairs, tmp_path, monkeypatch):
        monkeypatch.setattr(_fill, "_TEXTS_A_CALL", 4)
        encoder = FakeEncoder()
        encoder.encoder.max_tokens = 3
        with pytest.warns(UserWarning, match=r"the encoder reads the first 3 and ignores the rest") as caught:
            run(fake_pairs, tmp_path / "cache", encoder)
        assert len(caught) == 1

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
        assert [failed.id for failed in report.failures] == ["clip-7"]
        run(fake_pairs, tmp_path / "fresh")
        assert contents(tmp_path / "cache") == contents(tmp_path / "fresh")

    def test_not_one_readable_video_is_an_error_and_can_be_mended(self, fake_pairs, tmp_path):
        for n in range(11):
            (tmp_path / f"{n}.mp4").write_text("broken: no frames")
        with pytest.raises(DITSError, match=r"of its 11 videos none .* clip-0: broken: no frames"):
            run(fake_pairs, tmp_path / "cache")
        for n in range(9):
            (tmp_path / f"{n}.mp4").write_text(f"video {n}")
        assert run(fake_pairs, tmp_path / "cache", retry_failed=True).videos == 9

    def test_a_folder_without_the_videos_is_refused_before_a_text_is_embedded(self, fake_pairs, tmp_path):
        encoder = FakeEncoder()
        with pytest.raises(InputError, match="elsewhere: there is no such folder"):
            run(fake_pairs, tmp_path / "cache", encoder, videos=tmp_path / "elsewhere")
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "0.mkv").touch()
        with pytest.raises(InputError, match=r"of its 11 videos none is there.*did you mean '0.mkv'\?"):
            run(fake_pairs, tmp_path / "cache", encoder, videos=tmp_path / "elsewhere")
        assert encoder.encoder.read == []
        assert not (tmp_path / "cache").exists()
        assert run(fake_pairs, tmp_path / "cache", encoder).videos == 9

    def test_a_failure_is_remembered_for_the_place_where_it_happened(self, fake_pairs, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "1.mp4").write_text("video 1")
        assert len(run(fake_pairs, tmp_path / "cache", videos=tmp_path / "elsewhere").failures) == 10
        encoder = FakeEncoder()
        report = run(fake_pairs, tmp_path / "cache", encoder)
        assert [failed.id for failed in report.failures] == ["clip-4", "clip-7"]
        assert encoder.decoded == [f"{n}.mp4" for n in range(11) if n != 1]
        assert encoder.encoder.read == []
        run(fake_pairs, tmp_path / "fresh")
        assert contents(tmp_path / "cache") == contents(tmp_path / "fresh")
        encoder = FakeEncoder()
        run(fake_pairs, tmp_path / "cache", encoder)
        assert encoder.decoded == []

    def test_a_file_that_was_missing_is_tried_again_once_it_is_there(self, fake_pairs, tmp_path):
        (tmp_path / "5.mp4").unlink()
        run(fake_pairs, tmp_path / "cache")
        (tmp_path / "5.mp4").write_text("video 5")
        encoder = FakeEncoder()
        assert run(fake_pairs, tmp_path / "cache", encoder).videos == 9
        assert encoder.decoded == ["5.mp4"]

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
        assert "texts   2, 2 of them new" in output
        assert "videos  1, 1 of them new" in output
        assert "failed  1 video, with 1 text left out" in output
        assert "none.mp4: no such file" in output
        write_clip(tmp_path / "none.mp4", [picture(n) for n in range(15)])
        assert main([*command, "--retry-failed"]) == 0
        assert len(load_pairs(tmp_path / "cache")) == 2

    def test_pairs_are_read_before_a_model_is_loaded(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(VideoEncoder, "from_pretrained", lambda *_, **__: pytest.fail("was loaded"))
        pairs = tmp_path / "pairs.jsonl"
        for content in ("nonsense\n", "video,text\na.mp4,a dog\n"):
            pairs.write_text(content)
            for store in ([], ["--store", str(tmp_path / "store")]):
                command = ["embed", str(pairs), "--encoder", "demo-clip", "--out", str(tmp_path / "out"), *store]
                assert main(command) == 1
                assert "line 1: is not JSON" in capsys.readouterr().err


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


@pytest.mark.slow
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
