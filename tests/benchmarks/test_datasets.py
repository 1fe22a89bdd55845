from __future__ import annotations

import csv
import json
import shutil
import zipfile
from functools import cache
from pathlib import Path

import pytest
from pydantic import ValidationError

from benchmarks.datasets import DATASETS, UserFileError, find_videos
from benchmarks.datasets import lookalike as lookalikes
from benchmarks.datasets.lookalike import CaptionedClip, write_lookalike
from benchmarks.datasets.msrvtt import MSRVTT
from dits_adapter.errors import DITSError
from tests.hostile_files import written

ANNOTATIONS = Path(__file__).parents[3] / "shared" / "annotations"
real = pytest.mark.skipif(
    not ANNOTATIONS.is_dir(), reason="the real annotation files (shared annotations/) are not here"
)


@cache
def load_real(name, split):
    """Read a split once: MSR-VTT's take seconds."""
    return DATASETS[name].load(ANNOTATIONS / name, split)


@real
@pytest.mark.parametrize(
    ("name", "split", "queries", "videos"),
    [
        ("msrvtt", "train", 180_000, 9_000),
        ("msrvtt", "train-7k", 140_200, 7_010),
        ("msrvtt", "test", 1_000, 1_000),
        ("msrvtt", "test-deduplicated", 562, 562),
        ("didemo", "train", 8_362, 8_362),
        ("didemo", "val", 1_065, 1_065),
        ("didemo", "test", 1_004, 1_004),
        ("vatex", "test", 15_000, 1_500),
        ("charades", "train", 7_985, 7_985),
        ("charades", "test", 1_863, 1_863),
        ("charades", "test-descriptions", 4_537, 1_863),
    ],
)
def test_the_real_files_give_the_published_counts(name, split, queries, videos):
    loaded = load_real(name, split)
    assert (len(loaded.texts), len(loaded.video_ids)) == (queries, videos)
    assert loaded.deviations == ()
    assert set(loaded.labels.tolist()) == set(range(videos))


@real
def test_msrvtt_reads_the_unpacked_captions_alike(tmp_path):
    for name in ("MSRVTT_JSFUSION_test.csv", "MSRVTT_train.9k.csv"):
        shutil.copy(ANNOTATIONS / "msrvtt" / name, tmp_path)
    for archive in (ANNOTATIONS / "msrvtt").glob("*.zip"):
        shutil.unpack_archive(archive, tmp_path)
    for split in ("train", "test-deduplicated"):
        packed, unpacked = load_real("msrvtt", split), MSRVTT.load(tmp_path, split)
        assert unpacked.texts == packed.texts
        assert unpacked.deviations == ()


@real
def test_msrvtt_overlaps_as_much_as_is_known():
    """107 sentences and the source videos of 372 clips of the test occur in training."""
    train, test, kept = (load_real("msrvtt", split) for split in ("train", "test", "test-deduplicated"))
    urls = {}
    for archive in (ANNOTATIONS / "msrvtt").glob("*.zip"):
        with zipfile.ZipFile(archive) as file:
            (name,) = (name for name in file.namelist() if name.endswith(".json"))
            urls |= {video["video_id"]: video["url"] for video in json.loads(file.read(name))["videos"]}
    captions, sources = set(train.texts), {urls[video] for video in train.video_ids}
    told = {video for text, video, _ in test if text in captions}
    cut = {video for video in test.video_ids if urls[video] in sources}
    assert (len(told), len(cut)) == (107, 372)
    assert set(kept.video_ids) == set(test.video_ids) - told - cut


@real
def test_didemo_paragraphs_are_the_published_ones():
    folder = ANNOTATIONS / "didemo"
    with (folder / "didemo_test_label.csv").open(encoding="utf-8", newline="") as file:
        published = {Path(row["video_path"]).name.rpartition(".")[0]: row["text"] for row in csv.DictReader(file)}
    joined = {video: text for text, video, _ in DATASETS["didemo"].load(folder, "test")}
    assert len(joined) == 1_004
    assert joined == published


@real
def test_the_other_list_of_1500_vatex_clips_is_noticed(tmp_path):
    for source, name in {"test1k5_sec_list.txt": "test_list.txt", "GRAM_descs_ret_test.json": None}.items():
        shutil.copy(ANNOTATIONS / "vatex" / source, tmp_path / (name or source))
    with pytest.raises(UserFileError, match=r"test_list.txt, line \d+: \S+ has no captions"):
        DATASETS["vatex"].load(tmp_path, "test")
    captions = json.loads((tmp_path / "GRAM_descs_ret_test.json").read_text())
    known = {record["video_id"]: record["desc"] for record in captions}
    listed = (tmp_path / "test_list.txt").read_text().split()
    full = [{"videoID": i, "enCap": known.get(i, ["?"] * 10)} for i in listed]
    (tmp_path / "vatex_validation_v1.0.json").write_text(json.dumps(full))
    loaded = DATASETS["vatex"].load(tmp_path, "test")  # every count is right, only the clips are not
    assert (len(loaded.texts), len(loaded.video_ids)) == (15_000, 1_500)
    (deviation,) = loaded.deviations
    assert "test_list.txt is another file than the published one" in deviation


def same(loaded, expected):
    return (loaded.texts, loaded.video_ids, loaded.paths, loaded.labels.tolist()) == (
        expected.texts,
        expected.video_ids,
        expected.paths,
        expected.labels.tolist(),
    )


def splits_of(dataset, root):
    return {split: dataset.load(root, split) for split in dataset.splits if split != "test-999"}


def test_every_encoding_and_line_end_reads_alike(lookalike):
    dataset, root = lookalike
    expected = splits_of(dataset, root)
    annotations = {path: path.read_bytes().decode() for path in root.rglob("*") if path.name in dataset.files}
    annotations |= {path: path.read_text() for path in root.rglob("pairs.jsonl")}
    kinds = {path: dict(written(text.replace("\r\n", "\n").rstrip("\n"))) for path, text in annotations.items()}
    for kind in next(iter(kinds.values())):
        for path, contents in kinds.items():
            path.write_bytes(contents[kind])
        for split, loaded in splits_of(dataset, root).items():
            assert same(loaded, expected[split]), (kind, split)


@pytest.mark.parametrize("spelling", [" {} ", "{}\t", "{}.mp4", "{}.MOV"])
@pytest.mark.parametrize(("name", "listing"), [("vatex", "val_list.txt"), ("msrvtt", "MSRVTT_train.9k.csv")])
def test_blanks_and_suffixes_of_ids_are_seen_past(name, listing, spelling, tmp_path, clips):
    write_lookalike(name, tmp_path, clips)
    split = "val" if name == "vatex" else "train"
    expected = DATASETS[name].load(tmp_path, split)
    head, *ids = (tmp_path / listing).read_text().split()
    lines = [head if name == "msrvtt" else spelling.format(head), *map(spelling.format, ids)]
    (tmp_path / listing).write_text("\n".join([*lines, "", " "]))
    assert same(DATASETS[name].load(tmp_path, split), expected)
    (tmp_path / listing).write_text("\n".join([*lines, f"{ids[-1]}x"]))
    with pytest.raises(UserFileError, match=rf"has no captions? in .*; did you mean '{ids[-1]}'\?"):
        DATASETS[name].load(tmp_path, split)


def test_a_test_list_may_name_files(tmp_path, clips):
    write_lookalike("msrvtt", tmp_path, clips)
    expected = {split: MSRVTT.load(tmp_path, split) for split in ("test", "test-deduplicated")}
    path = tmp_path / "MSRVTT_JSFUSION_test.csv"
    rows = list(csv.reader(path.read_text().splitlines()))
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows(
            [[*row[:2], f" {row[2]}.mp4 " if number else row[2], row[3]] for number, row in enumerate(rows)]
        )
    assert all(same(MSRVTT.load(tmp_path, split), loaded) for split, loaded in expected.items())


def test_two_names_of_a_file_are_one_video(tmp_path, clips):
    write_lookalike("msrvtt", tmp_path, clips)
    first, second = MSRVTT.load(tmp_path, "test").paths[:2]
    second.unlink()
    second.symlink_to(first)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / first.name).hardlink_to(first)
    loaded = MSRVTT.load(tmp_path, "test")
    assert (len(loaded.texts), len(loaded.video_ids), loaded.labels.tolist()) == (3, 2, [0, 0, 1])


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("split", ["test", "test-descriptions"])
def test_tables_of_any_delimiter_read_alike(delimiter, split, tmp_path, clips):
    write_lookalike("charades", tmp_path, clips)
    expected = DATASETS["charades"].load(tmp_path, split)
    path = tmp_path / "Charades_v1_test.csv"
    rows = list(csv.reader(path.read_text().splitlines()))
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([*rows[:2], [], [""] * len(rows[0]), *rows[2:], []])
    assert same(DATASETS["charades"].load(tmp_path, split), expected)


def make_clips(folder, split, count, captions):
    clips = []
    for number in range(count):
        path = folder / f"{split}{number}.mp4"
        path.write_bytes(f"{split} {number}".encode())
        clips.append(
            CaptionedClip(path, [f'telling {n} of {split} clip {number}, in "words"' for n in range(captions)])
        )
    return clips


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return {
        "train": make_clips(folder, "train", 4, 5),
        "val": make_clips(folder, "val", 2, 5),
        "test": make_clips(folder, "test", 3, 5),
    }


@pytest.fixture(params=sorted(DATASETS))
def lookalike(request, tmp_path, clips):
    write_lookalike(request.param, tmp_path, clips)
    return DATASETS[request.param], tmp_path


def test_a_lookalike_reads_back_with_its_videos(lookalike, clips):
    dataset, root = lookalike
    for split in ("train", "val", "test"):
        if split not in dataset.splits:
            continue
        loaded = dataset.load(root, split)
        assert len(loaded.video_ids) == len(clips[split])
        for (text, _, path), label in zip(loaded, loaded.labels, strict=True):
            clip = clips[split][label]
            assert path.read_bytes() == clip.path.read_bytes()
            assert text in {*clip.captions, " ".join(clip.captions)}
        assert len(loaded.deviations) >= 1  # nobody takes its figures for published ones


@pytest.mark.parametrize(
    ("name", "split", "texts"),
    [
        ("msrvtt", "train", 20),
        ("msrvtt", "test", 3),
        ("msrvtt", "test-deduplicated", 2),
        ("lsmdc", "train", 20),
        ("lsmdc", "test", 3),
        ("lsmdc", "test-999", 2),
        ("didemo", "test", 3),
        ("vatex", "test", 15),
        ("charades", "test", 3),
        ("charades", "test-descriptions", 12),
    ],
)
def test_how_many_texts_a_video_has(name, split, texts, tmp_path, clips):
    write_lookalike(name, tmp_path, clips)
    assert len(DATASETS[name].load(tmp_path, split).texts) == texts


def test_the_check_tells_what_is_there_and_where_the_rest_is(lookalike):
    dataset, root = lookalike
    video = next(path for path in root.rglob("*") if path.suffix in (".mp4", ".avi"))
    video.unlink()
    name = min(name for name in dataset.files if (root / name).is_file())
    report = dataset.check(root)
    assert f"not found: {video.name.rpartition('.')[0]}" in report
    assert dataset.license in report
    assert dataset.videos in report
    (root / name).unlink()
    report = dataset.check(root)
    assert "NOT READY" in report
    assert f"{name} ({dataset.files[name].source})" in report


def test_a_missing_file_is_named_with_its_source_and_the_other_form(tmp_path):
    (tmp_path / "MSRVTT_train.9k.csv").write_text("video_id\nvideo0\n")
    with pytest.raises(
        DITSError, match=r"missing from .*: MSRVTT_data.json \(msrvtt_data.zip.*Instead also: .*zip"
    ):
        MSRVTT.load(tmp_path, "train")
    with pytest.raises(DITSError, match="no split 'dev'; it has train"):
        MSRVTT.load(tmp_path, "dev")
    with pytest.raises(DITSError, match="is no folder"):
        MSRVTT.check(tmp_path / "nowhere")


MSRVTT_JSON = {"videos": [], "sentences": [{"video_id": "video0", "caption": "a cat"}]}


@pytest.mark.parametrize(
    ("name", "split", "files", "message"),
    [
        ("msrvtt", "test", {"MSRVTT_JSFUSION_test.csv": "key,video_id\na,b\n"}, "line 1: no column 'sentence'"),
        (
            "msrvtt",
            "test",
            {"MSRVTT_JSFUSION_test.csv": "video_id,sentence\nv,a cat\nv,a, b\n"},
            "line 3: 3 fields",
        ),
        (
            "msrvtt",
            "test",
            {"MSRVTT_JSFUSION_test.csv": 'video_id,sentence\nv,"two\nlines"\nv, \n'},
            "line 4: 'sentence' is empty",
        ),
        ("msrvtt", "test", {"MSRVTT_JSFUSION_test.csv": 'video_id,sentence\nv,"open\n'}, "not a readable CSV row"),
        (
            "msrvtt",
            "test",
            {"MSRVTT_JSFUSION_test.csv": b"video_id,sentence\nv,\xff\n"},
            "line 2: its byte 3 (0xff)",
        ),
        ("msrvtt", "test", {"MSRVTT_JSFUSION_test.csv": '{"video": "v", "text": "a"}\n'}, "line 1: JSON, where a"),
        (
            "msrvtt",
            "test",
            {"MSRVTT_JSFUSION_test.csv": '"video_id,sentence\nv,a\n'},
            "line 1: not a readable CSV",
        ),
        (
            "msrvtt",
            "test",
            {"MSRVTT_JSFUSION_test.csv": "video_id,sentence\nv," + "a" * 2**20},
            "line 2: is longer than",
        ),
        ("msrvtt", "test", {"MSRVTT_JSFUSION_test.csv": ""}, "line 1: no column"),
        (
            "msrvtt",
            "train",
            {"MSRVTT_train.9k.csv": "video_id\nvideo0\nvideo1\n", "MSRVTT_data.json": json.dumps(MSRVTT_JSON)},
            "MSRVTT_train.9k.csv, line 3: video1 has no caption",
        ),
        (
            "msrvtt",
            "train",
            {"MSRVTT_train.9k.csv": "video_id\nvideo0\n", "MSRVTT_data.json": '{\n"sentences": [,]}'},
            "MSRVTT_data.json, line 2: is not JSON",
        ),
        (
            "msrvtt",
            "train",
            {"MSRVTT_train.9k.csv": "video_id\nvideo0\n", "MSRVTT_data.json": "[]"},
            "no 'sentences'",
        ),
        (
            "msrvtt",
            "train",
            {
                "MSRVTT_train.9k.csv": "video_id\nvideo0\n",
                "train_val_annotation.zip": "no archive",
                "test_videodatainfo.json.zip": "",
            },
            "train_val_annotation.zip: is a damaged or encrypted archive",
        ),
        (
            "lsmdc",
            "test",
            {"LSMDC16_challenge_1000_publictect.csv": "a\tb\tc\td\te\tf\na\tb\n"},
            "line 2: 2 tab-separated fields",
        ),
        (
            "lsmdc",
            "test",
            {"LSMDC16_challenge_1000_publictect.csv": "a\tb\tc\td\te\t \n"},
            "line 1: sentence is empty or blank",
        ),
        (
            "lsmdc",
            "test",
            {"LSMDC16_challenge_1000_publictect.csv": b"a\tb\tc\td\te\tf\n\xff\n"},
            "line 2: its byte 1 (0xff) is no UTF-8",
        ),
        (
            "didemo",
            "test",
            {"test_list.txt": "a.mp4\n\nb.mp4\n", "test_data.json": '[{"video": "a.mp4", "description": "x"}]'},
            "test_list.txt, line 3: b.mp4 has no description",
        ),
        (
            "didemo",
            "test",
            {"test_list.txt": "a.mp4\n", "test_data.json": '[{"video": "a.mp4"}]'},
            "record 0 needs 'description'",
        ),
        (
            "vatex",
            "test",
            {"test_list.txt": "a\n", "vatex_validation_v1.0.json": '[{"videoID": "a", "enCap": ["x", ""]}]'},
            "record 0: 'enCap' is empty or blank",
        ),
        (
            "vatex",
            "test",
            {
                "test_list.txt": "a\n",
                "vatex_validation_v1.0.json": json.dumps([{"videoID": "a", "enCap": ["x" * 2**21]}]),
            },
            "record 0: 'enCap' has 2,097,152 characters",
        ),
        (
            "vatex",
            "test",
            {"test_list.txt": "a\n", "vatex_validation_v1.0.json": '[{"videoID": "a", "enCap": ["\\ud800"]}]'},
            "record 0: 'enCap' holds",
        ),
        (
            "vatex",
            "test",
            {"test_list.txt": "a\n", "vatex_validation_v1.0.json": '{"a": ["x"]}'},
            "expected a list",
        ),
        ("charades", "test", {"Charades_v1_test.csv": "id,script\nA,\n"}, "line 2: 'script' is empty"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(name, split, files, message, tmp_path):
    for file, content in files.items():
        (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserFileError) as caught:
        DATASETS[name].load(tmp_path, split)
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_lsmdc_lines_that_a_program_quoted_read_as_before(tmp_path):
    row = ["1_A_00.00.00.000-00.00.05.000", *"abcd", 'SOMEONE says "go".']
    quoted = '"' + "\t".join([*row[:-1], row[-1].replace('"', '""')]) + '"'
    (tmp_path / "LSMDC16_annos_val.csv").write_text("\t".join(row) + "\r\n" + quoted + "\n")
    loaded = DATASETS["lsmdc"].load(tmp_path, "val")
    assert loaded.texts == ('SOMEONE says "go".',) * 2
    assert loaded.video_ids == (row[0],)


def test_charades_descriptions_split_at_semicolons(tmp_path):
    (tmp_path / "Charades_v1_test.csv").write_text('id,script,descriptions\nA,s,"one.; two, too.;"\nB,s,three\n')
    loaded = DATASETS["charades"].load(tmp_path, "test-descriptions")
    assert loaded.texts == ("one.", "two, too.", "three")
    assert loaded.labels.tolist() == [0, 0, 1]


def test_videos_are_found_at_any_depth_by_name_and_through_links(tmp_path):
    for name in ("deep/er/a.mp4", "b.AVI", "c.jpg", "elsewhere/d.webm", "e.", "f"):
        path = tmp_path / "root" / name if not name.startswith("elsewhere") else tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "root")
    found = find_videos(tmp_path / "root", list("abcdef"))
    assert {video: path.name for video, path in found.items()} == {
        "a": "a.mp4",
        "b": "b.AVI",
        "d": "d.webm",
        "e": "e.",
    }


def test_a_video_that_is_there_twice_is_refused(tmp_path):
    for folder in ("raw", "compressed"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.mp4").touch()
    with pytest.raises(DITSError, match="video a is there twice"):
        find_videos(tmp_path, ["a"])
    assert find_videos(tmp_path / "raw", ["a"]) == {"a": tmp_path / "raw" / "a.mp4"}


def test_an_annotation_file_may_lie_one_folder_deeper_but_not_twice(tmp_path, clips):
    write_lookalike("charades", tmp_path / "Charades", clips)
    assert len(DATASETS["charades"].load(tmp_path, "test").texts) == 3
    shutil.copytree(tmp_path / "Charades", tmp_path / "copy")
    with pytest.raises(DITSError, match=r"Charades_v1_test.csv is there twice"):
        DATASETS["charades"].load(tmp_path, "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": {}}, "differ in"),
        ({"splits": {"test": MSRVTT.splits["test"]}}, "differ in"),
        ({"span": (5, 2)}, "no interval"),
        ({"url": "somewhere"}, "url"),
        ({"license": " "}, "license"),
        ({"citation": "Xu et al."}, "citation"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_a_record_is_validated(change, message):
    fields = {name: getattr(MSRVTT, name) for name in type(MSRVTT).model_fields}
    with pytest.raises(ValidationError, match=message):
        type(MSRVTT)(**{**fields, **change})


def test_a_lookalike_is_made_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lookalikes, "SIZES", {"train": 2, "val": 1, "test": 1})
    assert lookalikes.main(["vatex", str(tmp_path / "vatex")]) == 0
    assert "vatex, a look-alike of 4 generated clips" in capsys.readouterr().out
    loaded = DATASETS["vatex"].load(tmp_path / "vatex", "train")
    assert (len(loaded.texts), len(loaded.video_ids), None in loaded.paths) == (10, 2, False)
