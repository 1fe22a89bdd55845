"""`dits-adapter ingest`: a hostile folder to its end, an estimate before the start, and interruptions."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from dits_adapter.cli import _ingest, main
from dits_adapter.stores.open import open_store
from dits_adapter.video import decode
from dits_adapter.video._child import ChildReader
from tests.stores.fakes import FakeEncoder, write_video
from tests.video.clips import write_clip
from tests.video.hostile import MENDED, PICTURES, REFUSED


class DyingReader:
    """Decoder that a damaged file kills."""

    def __init__(self, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a file of every hostile kind, and of good ones before, between and after them."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, (_, write) in {**REFUSED, **MENDED}.items():
        write(folder / name)
    for first, name in enumerate(("aaa.mp4", "mmm.mp4", "zzz.mp4")):
        write_clip(folder / name, PICTURES[first : first + 20])
    return folder


def test_a_hostile_folder_is_ingested_to_its_end(
    hostile: Path,
    tiny_clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(decode.READERS, "decord", partial(ChildReader, "decord", DyingReader))
    monkeypatch.setitem(decode.READERS, "torchcodec", partial(ChildReader, "decord", DyingReader))
    command = ["ingest", str(hostile), "--store", str(tmp_path / "store"), "--encoder", str(tiny_clip)]
    command += ["--frames", "2", "--segment-seconds", "10", "--file-pixels", "10000", "--file-seconds", "60"]

    assert main([*command, "--dry-run"]) == 3
    estimated = capsys.readouterr().out
    assert "a dry run" in estimated
    assert f"{hostile / 'archive.mp4'}: is a zip archive" in estimated
    assert not (tmp_path / "store").exists()

    assert main(command) == 3
    lines = capsys.readouterr().out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("mended"))
    remarks = dict(
        line.strip().split(": ", 1) for line in lines[place + 1 : place + 1 + int(lines[place].split()[1])]
    )
    assert {Path(name).name for name in remarks} == {
        *("last.mp4", "joined.ts", "joined.mpg", "joined.vob", "equal.mkv", "jump.mkv")
    }
    reasons = dict(line.strip().split(": ", 1) for line in lines[lines.index(f"failed   {len(REFUSED)}") + 1 :])
    assert sorted(reasons) == sorted(str(hostile / name) for name in REFUSED)
    for name, (words, _) in REFUSED.items():
        reason = reasons[str(hostile / name)]
        assert words in reason
        assert "Error" not in reason
    assert "decord: crashes (SIGKILL)" in reasons[str(hostile / "undecodable.mp4")]
    good = {name: segments for name, (segments, _) in MENDED.items()}
    with open_store(tmp_path / "store") as store:
        stored = {Path(record.path).name: record for record in store.records() if not record.failure}
        assert {name: record.found for name, record in stored.items()} == {
            **good,
            **dict.fromkeys(("aaa.mp4", "mmm.mp4", "zzz.mp4"), 1),
        }
        assert all(record.complete for record in stored.values())

    assert main(command) == 3
    remembered = f"failed   {len(REFUSED)}, {len(REFUSED)} of them in an earlier run and not tried again without"
    assert f"{remembered} --retry-failed\n" in capsys.readouterr().out
    assert main([*command, "--dry-run"]) == 3
    assert f"present  {len(stored)}" in capsys.readouterr().out


def test_an_estimate_before_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for number, frames in enumerate((100, 50)):
        write_clip(videos / f"{number}.mp4", PICTURES[:frames])
    MENDED["centuries.mkv"][1](videos / "2.mkv")  # nobody needs to store the 2.6e9 segments that it claims
    store = str(tmp_path / "store")
    assert main(["ingest", str(videos), "--store", store, "--segment-seconds", "1", "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "to read  3 videos, 0.1 minutes and 1 of unknown length, 7 segments: about 1 MB of" in output
    assert "present  0\n" in output
    assert "nothing is stored yet: the ingestion makes the collection 'videos'\n" in output
    assert not Path(store).exists()


def test_an_estimate_escapes_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "\x1b[2J.mp4").write_text("no video")
    assert main(["ingest", str(tmp_path), "--store", str(tmp_path / "store"), "--dry-run"]) == 3
    output = capsys.readouterr().out
    assert r"\x1b[2J.mp4: is not a video" in output
    assert "\x1b" not in output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_it_says_that_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    for seed in range(12):
        write_video(tmp_path / "videos" / f"{seed:02}.mp4", seed=seed, segments=4)
    encoder = FakeEncoder()
    encoder.before = lambda path: os.kill(os.getpid(), number) if len(encoder.decoded) == 10 else None
    monkeypatch.setattr(_ingest, "video_encoder", lambda args, limits: encoder)
    command = ["ingest", str(tmp_path / "videos"), "--store", str(tmp_path / "store")]
    before = signal.getsignal(number)
    usual = signal.default_int_handler if number == signal.SIGINT else before
    signal.signal(number, usual)  # a shell has its background jobs ignore SIGINT
    try:
        assert main(command) == 130
        assert signal.getsignal(number) == usual
    finally:
        signal.signal(number, before)
    assert "stopped. 32 segments were stored by this run, and stay; the same command" in capsys.readouterr().err
    assert main(command) == 0
    assert "stored   4 videos, 16 segments" in capsys.readouterr().out


@pytest.mark.parametrize("option", [["--file-pixels", "0"], ["--file-memory", "-1"], ["--file-seconds", "nan"]])
def test_impossible_limits_are_refused_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    assert main(["ingest", str(tmp_path), "--encoder", "nowhere", *option]) == 1
    assert "expected a finite limit above 0" in capsys.readouterr().err
