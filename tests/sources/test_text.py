"""Texts that are there, beside a video and in it: found, cleaned, timed, and what cannot be read is named."""

from __future__ import annotations

import json
import os
import random

import pytest

from dits_adapter import VideoTexts, find_pairs
from dits_adapter.errors import InputError
from tests.sources.conftest import srt, write_titled_clip

DOG = srt(
    (0, 2, "<i>Look</i>, the dog"),
    (2, 4, "- runs after the ball."),
    (4, 5, "[barking]"),
    (5, 7, "JOHN: And there it goes!"),
    (9.5, 11, "♪ la la la ♪"),
    (12, 14, "It swims in the lake now."),
    (50, 52, "Oh no."),
    (55, 59, "Subtitles by Bob"),
)


def found(path, **options):
    """Texts by span and source, and the findings."""
    findings = VideoTexts(**options).find(str(path))
    spans = [[None if bound is None else round(bound, 3) for bound in (t.start, t.end)] for t in findings.texts]
    return [(*span, t.source, t.text) for span, t in zip(spans, findings.texts, strict=True)], findings


def texts(path, **options):
    return [text for *_, text in found(path, **options)[0]]


def test_subtitles_become_sentences_with_spans(place):
    pieces, findings = found(place("a.mp4", srt=DOG))
    assert pieces == [
        (0, 7, "subtitles", "Look, the dog runs after the ball. And there it goes!"),
        (12, 14, "subtitles", "It swims in the lake now."),
    ]
    assert findings.left_out == {"is a sound, a song or a credit": 3, "has fewer than 3 words": 1}


def test_spans_last_five_to_twenty_seconds_where_sentences_and_pauses_allow(place):
    cues = [(2 * n, 2 * n + 2, f"the dog runs by house {n}{'.' if n % 5 == 4 else ''}") for n in range(30)]
    spans = [(start, end) for start, end, *_ in found(place("a.mp4", srt=srt(*cues)))[0]]
    assert spans == [(10.0 * n, 10.0 * n + 10) for n in range(6)]
    cues = [(2 * n, 2 * n + 2, f"the dog runs by house {n}") for n in range(30)]
    spans = [(start, end) for start, end, *_ in found(place("b.mp4", srt=srt(*cues)))[0]]
    assert spans == [(0, 20), (20, 40), (40, 60)]


def test_texts_of_segments_have_the_spans_that_ingestion_cuts(place):
    cues = [(0, 3, "first the dog runs"), (8, 13, "then the cat sleeps"), (40, 44, "last a bird flies")]
    pieces, _ = found(place("a.mp4", srt=srt(*cues)), segment_seconds=25)
    # 60 s are cut into 25 s and 35 s, as `segment_spans` does.
    assert pieces == [
        (0, 25, "subtitles", "first the dog runs then the cat sleeps"),
        (25, 60, "subtitles", "last a bird flies"),
    ]


def test_a_short_video_is_not_divided(place):
    cues = [(0, 1, "the dog runs."), (3, 4, "then the cat sleeps")]
    whole = (None, None, "subtitles", "the dog runs. then the cat sleeps")
    assert found(place("a.mp4", 4, srt=srt(*cues)))[0] == [whole]


def test_captions_that_roll_up_are_read_once(place):
    vtt = (
        "WEBVTT\nKind: captions\n\n00:00.000 --> 00:02.000\n \nthe<00:00:00.500><c> dog</c> runs\n\n"
        "00:02.000 --> 00:02.010\nthe dog runs\n \n\n"
        "00:02.010 --> 00:04.000\nthe dog runs\nafter<c> the ball</c>\n\n"
        "00:04.010 --> 00:06.000\nafter the ball\nand catches it\n"
    )
    assert texts(place("a.mp4", en_vtt=vtt)) == ["the dog runs after the ball and catches it"]


def test_webvtt_without_its_notes_names_voices_and_entities(place):
    vtt = (
        "\ufeffWEBVTT\n\nNOTE hello\n\nintro\n00:00.000 --> 00:02.000 align:start\n"
        "<v Bob>Hello &amp; welcome to <c.red>my</c> show.\n\nNOTE nobody sees this\n\n"
        "2\n00:02.000 --> 00:05.000\nToday we bake bread.\n"
    )
    assert texts(place("a.mp4", vtt=vtt)) == ["Hello & welcome to my show. Today we bake bread."]


def test_substation_alpha_without_markup_comments_and_drawings(place):
    ass = (
        "[Script Info]\n\n[V4+ Styles]\nFormat: Name, Fontname\nStyle: Default,Arial\n\n[Events]\n"
        "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
        r"Dialogue: 0,0:00:01.00,0:00:03.00,Default,,0,0,0,,{\an8}A red\Nballoon flies {\i1}up{\i0}." + "\n"
        "Comment: 0,0:00:01.00,0:00:03.00,Default,,0,0,0,,not shown to anyone\n"
        r"Dialogue: 0,0:00:04.00,0:00:05.00,Default,,0,0,0,,{\p1}m 0 0 l 1 1{\p0}" + "\n"
    )
    assert texts(place("a.mp4", ass=ass)) == ["A red balloon flies up."]


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-8-sig", "Der Hund läuft über die Straße."),
        ("utf-16", "Der Hund läuft über die Straße."),
        ("utf-16-le", "Der Hund läuft über die Straße."),
        ("utf-16-be", "Der Hund läuft über die Straße."),
        ("cp1252", "Der Hund läuft über die Straße. Die Möwe fliegt über das Wasser, schön."),
        ("cp1251", "Собака бежит за мячом по пляжу. Кошка спит на диване весь день."),
        ("shift_jis", "犬が浜辺を走っています。とても楽しそうです。猫はソファで静かに寝ています。"),
    ],
)
def test_any_encoding(place, encoding, said):
    assert texts(place("a.mp4", srt=srt((0, 4, said)).encode(encoding))) == [said]


def test_languages_are_told_by_the_name(place):
    video = place(
        "a.mp4",
        en_srt=srt((0, 3, "A dog runs on the beach.")),
        de_srt=srt((0, 3, "Ein Hund läuft am Strand.")),
        srt=srt((9, 12, "Nobody knows this language.")),
    )
    assert len(texts(video)) == 3
    pieces, findings = found(video, language="en-US")
    assert [text for *_, text in pieces] == ["A dog runs on the beach.", "Nobody knows this language."]
    assert findings.left_out == {"is a file or stream in another language (de)": 1}


def test_a_sidecar_is_of_the_video_with_the_longest_name(place, tmp_path):
    place("a.mp4")
    place("a.de.mp4", srt=srt((0, 3, "A text of the second.")))
    place("a.x264-group.mp4", 4)
    assert texts(tmp_path / "a.mp4") == []
    assert texts(tmp_path / "a.de.mp4") == ["A text of the second."]


def test_times_outside_of_the_video(place):
    late = [(70, 72, "after the end of it"), (1, 3, "the beginning of it"), (59, 63, "across the very end")]
    pieces, findings = found(place("a.mp4", srt=srt(*late)))
    assert pieces == [(1, 3, "subtitles", "the beginning of it"), (59, 60, "subtitles", "across the very end")]
    assert findings.left_out == {"lies outside of the video": 1}
    path = place("b.mp4", srt=srt(*late, (80, 82, "more of this"), (90, 92, "and yet more")))
    _, findings = found(path)
    assert findings.texts == []
    reason = findings.failed[str(path.with_suffix(".srt"))]
    assert reason.startswith("3 of 5 times lie outside of the video, which lasts 60.0 s")


def test_times_without_order_or_length(place):
    cues = [(20, 22, "third comes the cat."), (0, 2, "first comes the dog."), (7, 5, "this ends too early")]
    pieces, findings = found(place("a.mp4", srt=srt(*cues, (10, 14, "then a bird"), (11, 12, "in between"))))
    assert [(start, end) for start, end, *_ in pieces] == [(0, 2), (10, 14), (20, 22)]
    assert findings.left_out == {"has no length": 1}


@pytest.mark.parametrize(
    ("suffix", "content", "reason"),
    [
        ("srt", b"", "is empty"),
        ("srt", b"\n \n", "is empty"),
        ("srt", random.Random(0).randbytes(20_000), "is no text"),
        ("srt", b"\0" * 999, "is no text"),
        ("srt", b"PK\3\4\n", "holds no subtitles"),
        ("srt", srt((0, 2, "a" * 20_000)).encode(), "line of more than 10,000"),
        ("vtt", b"WEBVTT\n\nnothing", "holds no subtitles"),
        ("ass", b"[Script Info]\n[Events]\nDialogue: x\n", ""),
        ("srt", b"x" * (2**24 + 1), "is larger than"),
        ("json", b'{"title": ', "is not JSON"),
        ("json", b"[" * 100_000, "nested too deeply"),
        ("json", b'{"id": 1}', "has no title"),
        (
            "json",
            b'{"title": "IMG_0001", "chapters": [{"start": 1e999, "end": 1, "title": "a b c"}]}',
            "has no title",
        ),
        ("txt", b"a line\n" * 101, "has 101 lines"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_the_rest_goes_on(place, suffix, content, reason):
    path = place("a.mp4", description="A dog runs along the beach.", **{suffix: content})
    pieces, findings = found(path)
    assert [text for *_, text in pieces] == ["A dog runs along the beach."]
    assert list(findings.failed) == [str(path.with_suffix("." + suffix))]
    assert reason in findings.failed[str(path.with_suffix("." + suffix))]


def test_patterns_take_no_time_on_hostile_subtitles(place):
    for n, line in enumerate(("(" * 5000, "<a" * 2500, "[" + " " * 5000, "*a" * 2000, "\\N" * 4000)):
        text = "\n".join([line] * 400)
        assert texts(place(f"{n}.mp4", srt="1\n00:00:00,000 --> 00:00:02,000\n" + text)) == []


def test_what_downloaders_write(place):
    info = {
        "title": "Dog on the beach",
        "fulltitle": "Dog on the beach",
        "description": "http://x.y\nSubscribe!\nMy dog runs along the beach.\n#dog",
        "tags": ["dog", "beach", "1080"],
        "chapters": [
            {"start_time": 0, "end_time": 30, "title": "Walking to the beach"},
            {"start_time": 30, "end_time": 60, "title": "Chapter 2"},
        ],
    }
    pieces, findings = found(place("a.mp4", info_json=json.dumps(info)))
    assert pieces == [
        (None, None, "title", "Dog on the beach"),
        (None, None, "title", "My dog runs along the beach."),
        (None, None, "title", "dog, beach"),
        (0, 30, "title", "Walking to the beach"),
    ]
    assert findings.left_out == {"says nothing, such as Chapter 1": 1}


def test_transcripts_and_lists_of_captions_in_json_and_text(place):
    spoken = {"text": "…", "segments": [{"start": 0, "end": 3, "text": " Hello there, my friends."}]}
    assert found(place("a.mp4", json=json.dumps(spoken)))[0] == [(0, 3, "subtitles", "Hello there, my friends.")]
    listed = ["a man rides a horse", {"caption": "a rider", "start": 1, "end": 2}, 3, None, {"text": "a horse"}]
    assert found(place("b.mp4", json=json.dumps(listed)))[0] == [
        (None, None, "sidecar", "a man rides a horse"),
        (None, None, "sidecar", "a horse"),
        (1, 2, "sidecar", "a rider"),
    ]
    assert texts(place("c.mp4", txt="a cat on a mat\n\n a mat \n")) == ["a cat on a mat", "a mat"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_what_the_file_itself_holds(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_titled_clip(
        path,
        seconds=30,
        metadata={"title": "A walk to the lake", "comment": "Encoded by x264"},
        chapters=[(0, 5, "Chapter 1"), (5, 30, "Through the wood")],
        subtitles=[(1, 4, r"{\i1}Look{\i0} at\Nthe trees."), (20, 24, "Here is the lake.")],
    )
    pieces, findings = found(path)
    assert (None, None, "title", "A walk to the lake") in pieces
    assert (5, 30, "title", "Through the wood") in pieces
    assert (1, 4, "subtitles", "Look at the trees.") in pieces
    assert (20, 24, "subtitles", "Here is the lake.") in pieces
    assert findings.failed == {}
    assert "subtitles" not in {source for _, _, source, _ in found(path, language="de")[0]}


def test_a_table_names_videos_in_many_ways(place, tmp_path):
    for name in ("x/a.mp4", "x/b.mp4", "x/c.mp4"):
        place(name)
    table = tmp_path / "table.csv"
    table.write_text(
        'video,caption,title,tags\nx/a.mp4,a dog runs,Dogs,"dog, ball"\nb.mp4,,IMG_1,\nc,a cat,,\nd.mp4,a bird,,\n'
    )
    out = tmp_path / "pairs.jsonl"
    report = find_pairs(tmp_path / "x", out, VideoTexts(table=table), progress=False)
    said = {(line["video"], *line["text"]) for line in map(json.loads, out.read_text().splitlines())}
    assert said == {("x/a.mp4", "a dog runs"), ("x/a.mp4", "Dogs"), ("x/a.mp4", "dog, ball"), ("x/c.mp4", "a cat")}
    assert report.failed == {}
    assert report.left_out["is in the table for a video that the sources lack, such as d.mp4"] == 1
    table.write_text(table.read_text().replace("a cat", "two cats"))
    assert find_pairs(tmp_path / "x", out, VideoTexts(table=table), progress=False).videos == 1
    with pytest.raises(InputError, match="no column video or path"):
        VideoTexts(table=place("y.mp4", csv="name,text\na,b\n").with_suffix(".csv"))
    with pytest.raises(InputError, match="no column text, title"):
        VideoTexts(table=place("z.mp4", csv="video,url\na,b\n").with_suffix(".csv"))


def test_names_are_taken_only_where_asked_and_where_they_are_words(place):
    path = place("playing guitar/dog_catches_frisbee.mp4")
    assert texts(path) == []
    assert texts(path, names=True) == ["dog catches frisbee", "playing guitar"]
    assert texts(place("videos/IMG_2041.mp4"), names=True) == []


def test_the_name_of_the_searched_folder_describes_no_video(place, tmp_path):
    place("my videos/red ball.mp4"), place("my videos/playing guitar/IMG_2041.mp4")
    find_pairs(tmp_path / "my videos", tmp_path / "pairs.jsonl", VideoTexts(names=True), progress=False)
    lines = map(json.loads, (tmp_path / "pairs.jsonl").read_text().splitlines())
    assert sorted(line["text"] for line in lines) == [["playing guitar"], ["red ball"]]


def test_a_changed_sidecar_is_read_anew_and_one_without_a_video_named(place, tmp_path):
    video = place("v/a.mp4", srt=srt((0, 3, "first the dog runs")))
    (tmp_path / "v" / "b.srt").write_text(DOG)
    out = tmp_path / "pairs.jsonl"
    report = find_pairs(tmp_path / "v", out, VideoTexts(), progress=False)
    assert report.failed == {str(tmp_path / "v" / "b.srt"): "no video of this name lies beside it"}
    assert find_pairs(tmp_path / "v", out, VideoTexts(), progress=False).present == 1
    video.with_suffix(".en.srt").write_text(srt((9, 12, "then the cat sleeps")))
    assert find_pairs(tmp_path / "v", out, VideoTexts(), progress=False).videos == 1
    assert len(out.read_text().splitlines()) == 2


def test_a_video_that_cannot_be_read_has_no_texts(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"\1\2" * 500)
    (tmp_path / "a.srt").write_text(DOG)
    report = find_pairs(tmp_path, tmp_path / "pairs.jsonl", VideoTexts(), progress=False)
    assert list(report.failed) == [str(tmp_path / "a.mp4")]
    assert not (tmp_path / "pairs.jsonl").exists()


@pytest.mark.parametrize("options", [{"language": ""}, {"language": "und"}, {"segment_seconds": 0.0}])
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(InputError):
        VideoTexts(**options)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders")
def test_a_pipe_beside_a_video_is_named_and_not_waited_for(place):
    video = place("a.mp4", txt="a dog runs")
    pipe = video.with_suffix(".srt")
    os.mkfifo(pipe)
    pieces, findings = found(video)
    assert [text for *_, text in pieces] == ["a dog runs"]
    assert findings.failed == {str(pipe): "is a pipe, not a file"}
