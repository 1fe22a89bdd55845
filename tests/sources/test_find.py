"""Files of pairs that several commands add to: what is done stays done, what changed is done anew."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time

import pytest

from dits_adapter import FoundText, PairsFile, TextFinder, find_pairs
from dits_adapter.errors import InputError, VideoError
from dits_adapter.sources._writer import DONE, replace_lines
from dits_adapter.sources.base import Findings
from dits_adapter.sources.report import PairsSample
from tests.waiting import wait_until


class Names(TextFinder):
    """Finder of the content of a video, and of a failure where it begins with `!`."""

    name = "names"
    sources = frozenset({"title"})

    def __init__(self, suffix="", seconds=0.0):
        self.settings = {"suffix": suffix}
        self.asked = []
        self.seconds = seconds

    def find(self, path):
        self.asked.append(os.path.basename(path))
        time.sleep(self.seconds)
        with open(path) as file:
            said = file.read()
        if said.startswith("!"):
            raise VideoError(path, said[1:])
        return Findings([FoundText(said + self.settings["suffix"], "title", 0.5)] if said else [])


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.mp4").write_text(f"video {name}")
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "pairs.jsonl"


def lines(out):
    return [json.loads(line) for line in out.read_text("utf-8").splitlines()]


def find(videos, out, finder=None, **options):
    return find_pairs(videos, out, finder or Names(), progress=False, **options)


def test_each_line_names_video_source_and_confidence(videos, out):
    report = find(videos, out)
    assert (report.videos, report.texts) == (3, 3)
    assert lines(out)[0] == {
        "video": "videos/a.mp4",
        "text": ["video a"],
        "source": "title",
        "confidence": 0.5,
    }


def test_videos_beside_the_file_are_named_whole(videos, tmp_path):
    find(videos, tmp_path / "elsewhere" / "pairs.jsonl")
    assert lines(tmp_path / "elsewhere" / "pairs.jsonl")[0]["video"] == str(videos / "a.mp4")


def test_what_is_done_is_skipped_and_stays_as_it_was_edited(videos, out):
    find(videos, out)
    kept = out.read_text("utf-8").splitlines()[1:]
    out.write_text("\n".join(kept))  # as an editor may leave it, without a last line's end
    (videos / "d.mp4").write_text("video d")
    again = Names()
    report = find(videos, out, again)
    assert again.asked == ["d.mp4"]
    assert report.present == 3
    assert [line["text"] for line in lines(out)] == [["video b"], ["video c"], ["video d"]]


def test_a_changed_video_and_changed_settings_are_done_anew_in_place_of_the_old(videos, out):
    out.write_text('{"video": "videos/a.mp4", "text": "by a person"}\n')
    find(videos, out)
    (videos / "a.mp4").write_text("another a")
    assert find(videos, out).videos == 1
    assert [line["text"] for line in lines(out)] == ["by a person", ["video b"], ["video c"], ["another a"]]
    assert find(videos, out, Names("!")).videos == 3
    assert [line["text"] for line in lines(out)][1:] == [["another a!"], ["video b!"], ["video c!"]]


def test_videos_without_texts_are_done_although_there_is_no_file_of_pairs(videos, out):
    for path in videos.iterdir():
        path.write_text("")
    find(videos, out)
    assert not out.exists()
    assert find(videos, out).present == 3


def test_a_lost_file_of_pairs_is_written_anew(videos, out):
    find(videos, out)
    out.unlink()
    assert find(videos, out).videos == 3


def test_failures_are_named_and_remembered_until_they_are_to_be_tried_again(videos, out):
    (videos / "b.mp4").write_text("!is damaged")
    report = find(videos, out)
    assert report.failed == {str(videos / "b.mp4"): "is damaged"}
    assert report.texts == 2
    again = Names()
    report = find(videos, out, again)
    assert (again.asked, report.failed_before, list(report.failed)) == ([], 1, [str(videos / "b.mp4")])
    again = Names()
    find(videos, out, again, retry_failed=True)
    assert again.asked == ["b.mp4"]


def test_a_torn_line_and_a_torn_note_cost_one_video(videos, out):
    find(videos, out)
    whole = out.read_bytes()
    done = out.with_name(out.name + DONE)
    out.write_bytes(whole[:-9])
    done.write_bytes(done.read_bytes()[:-9])
    again = Names()
    find(videos, out, again)
    assert again.asked == ["c.mp4"]
    assert out.read_bytes() == whole
    done.write_bytes(done.read_bytes() + b'{"video": "' + b"x" * 5000)
    for name in ("d.mp4", "e.mp4"):  # the second finds what the first has noted in the place of the torn line
        (videos / name).write_text(name)
        again = Names()
        find(videos, out, again)
        assert again.asked == [name]


class Halting(Names):
    """Finder that does not get beyond fifty videos."""

    def find(self, path):
        if len(self.asked) == 50:
            time.sleep(600)
        return super().find(path)


def _slowly(videos, out):
    find(videos, out, Halting(seconds=0.02))


def test_a_killed_run_goes_on(videos, out):
    for number in range(100):
        (videos / f"v{number:03}.mp4").write_text(f"video {number}")
    process = multiprocessing.get_context("fork").Process(target=_slowly, args=(videos, out))
    process.start()
    done = out.with_name(out.name + DONE)
    wait_until(lambda: done.exists() and done.stat().st_size)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    again = Names()
    find(videos, out, again)
    assert 53 <= len(again.asked) < 103
    assert sorted(line["video"] for line in lines(out)) == sorted(
        f"videos/{path.name}" for path in videos.glob("*.mp4")
    )


def test_two_processes_do_not_write_one_file(videos, out):
    class Nested(Names):
        def find(self, path):
            find(videos, out)

    report = find(videos, out, Nested())
    assert all("another process" in reason for reason in report.failed.values())
    assert len(report.failed) == 3


@pytest.mark.parametrize("content", ["not json\n", "[1]\n", b"\xff\xfe\x00\x01\x9f"])
def test_a_file_of_something_else_is_not_written_to(videos, out, content):
    data = content if isinstance(content, bytes) else content.encode()
    out.write_bytes(data)
    with pytest.raises(InputError, match=r"pairs\.jsonl"):
        find(videos, out)
    assert out.read_bytes() == data


def test_lines_of_a_source_are_replaced_as_a_whole(videos, out):
    find(videos, out)
    for word in ("one", "two"):
        assert replace_lines(out, {"feedback"}, [{"id": "a", "text": word, "source": "feedback"}]) == 1
    assert [line["source"] for line in lines(out)] == ["title"] * 3 + ["feedback"]
    assert lines(out)[-1]["text"] == "two"


def test_spans_that_a_file_of_pairs_cannot_have_are_left_out(videos, out):
    class Timed(Names):
        def find(self, path):
            spans = [
                (-1.0, 1.0),
                (1.0, 1.0004),
                (0.0, 0.0004),
                (3.0, 2.0),
                (1.0, float("inf")),
                (float("nan"), 1.0),
            ]
            return Findings([FoundText("a dog", "title", 1.0, *span) for span in [*spans, (1.0, 1.001)]])

    report = find(videos, out, Timed())
    assert report.left_out == {"is of no time that a video has": 18}
    assert PairsFile(out).videos == 3


@pytest.mark.parametrize("sources", [{"human", "title"}, {"rumor"}])
def test_sources_that_are_unknown_or_of_people_are_refused(videos, out, sources):
    finder = Names()
    finder.sources = frozenset(sources)
    with pytest.raises(InputError, match="there are feedback, subtitles"):
        find(videos, out, finder)
    finder.sources = frozenset({"caption"})
    with pytest.raises(InputError, match="the source 'title', which is not its"):
        find(videos, out, finder)


def test_repeated_and_empty_texts_are_left_out_and_counted(videos, out):
    class Twice(Names):
        def find(self, path):
            texts = ["A dog", "a  dog", " ", "a cat"]
            spans = [FoundText("a dog", "title", 1.0, 0.0, 2.0)]
            return Findings([*(FoundText(text, "title") for text in texts), *spans])

    report = find(videos, out, Twice())
    assert report.left_out == {"repeats another text of the video": 3, "is empty or no text": 3}
    assert lines(out)[:2] == [
        {"video": "videos/a.mp4", "text": ["A dog", "a cat"], "source": "title"},
        {"video": "videos/a.mp4", "start": 0.0, "end": 2.0, "text": ["a dog"], "source": "title"},
    ]


def test_the_sample_is_drawn_by_its_seed(videos, out):
    for number in range(50):
        (videos / f"v{number}.mp4").write_text(f"video {number}")
    find(videos, out)
    first, same, other = (PairsSample.of(out, seed) for seed in (0, 0, 1))
    assert first == same
    assert first.shown != other.shown
    assert first.texts == {"title": 53}
    assert "title: 53 texts in 53 lines, such as" in str(first)
