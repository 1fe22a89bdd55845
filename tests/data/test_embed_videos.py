"""Segments as rows of Arrow, made by a callable that engines run over batches of paths."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from dits_adapter import EmbedVideos, segment_schema
from dits_adapter.data.segment_table import segments_of
from dits_adapter.errors import InputError
from dits_adapter.stores._discover import identify
from dits_adapter.video.encoder import VideoEncoder
from tests.data.fakes import FRAMES
from tests.video.clips import picture, write_clip

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")
parquet = pytest.importorskip("pyarrow.parquet")

SECONDS = 0.2


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two clips with a file between them that is none, and a name without a file."""
    folder = tmp_path_factory.mktemp("clips")
    clips = [write_clip(folder / f"{n}.mp4", [picture(40 * n + i) for i in range(15)]) for n in range(2)]
    (folder / "broken.mp4").write_text("this is no video")
    return [str(path) for path in (clips[0], folder / "broken.mp4", folder / "gone.mp4", clips[1])]


@pytest.fixture(scope="module")
def encoder(tiny_clip: Path) -> VideoEncoder:
    return VideoEncoder.from_pretrained(tiny_clip, frames=FRAMES, device="cpu")


@pytest.fixture(scope="module")
def embed(tiny_clip: Path) -> EmbedVideos:
    return EmbedVideos(tiny_clip, segment_seconds=SECONDS, frames=FRAMES, device="cpu")


def test_rows_are_the_segments_and_failures_are_rows(files, embed, encoder):
    table = pa.concat_tables(embed(pa.table({"path": files})))
    assert table.schema == segment_schema(encoder.space.video.width)
    expected = list(encoder.iter_segments([files[0], files[3]], segment_seconds=SECONDS))
    rows = list(segments_of(table))
    assert [row.file.path for row in rows] == [files[0]] * 3 + files[1:3] + [files[3]] * 3
    assert [row.segments for row in rows] == [None, None, 3, None, None, None, None, 3]
    assert [row.error[:13] for row in rows if row.error] == ["is not a vide", "cannot be rea"]
    assert [row.file for row in rows[2:4]] == [identify(files[0]), identify(files[1])]
    assert (rows[4].file.video_id, rows[4].segment) == ("", None)
    for row, segment in zip((row for row in rows if row.segment), expected, strict=True):
        assert (row.segment.start, row.segment.end, row.segment.fps) == (segment.start, segment.end, segment.fps)
        np.testing.assert_allclose(row.segment.vector, segment.vector, atol=1e-6)
        np.testing.assert_allclose(row.segment.frame_vectors, segment.frame_vectors, atol=1e-6)
        np.testing.assert_array_equal(row.segment.timestamps, segment.timestamps)


def test_it_travels_without_its_model_and_takes_any_batch_of_paths(files, embed):
    embed.encoder  # noqa: B018  (is loaded)
    assert len(pickle.dumps(embed)) < 2000
    assert pickle.loads(pickle.dumps(embed))._encoder is None
    for batch in (
        files[2:3],
        {"path": np.array(files[2:3], object)},
        pa.table({"path": files[2:3]}),
        pd.DataFrame({"n": [1], "path": files[2:3]}),
        pa.record_batch({"path": files[2:3]}),
    ):
        assert [table["path"].to_pylist() for table in embed(batch)] == [files[2:3]]
    for batch, reason in (
        ({"file": files}, "no column 'path' of paths; it has file"),
        (pd.DataFrame({"file": files}), "no column 'path' of paths; it has file"),
        (files[0], "is one path"),
        ({"path": [files[0], None]}, "row 1 of the batch is None"),
    ):
        with pytest.raises(InputError, match=reason):
            next(embed(batch))
    with pytest.raises(InputError, match="overlap"):
        EmbedVideos("demo-clip", segment_seconds=1, overlap=2)


def test_batches_are_small_and_come_while_later_files_wait(files, embed, monkeypatch):
    monkeypatch.setattr("dits_adapter.data.embed_videos._ROWS", 2)
    assert [table.num_rows for table in embed(files)] == [2, 2, 2, 2]


def test_lists_stand_beside_their_paths(files, embed):
    nested = embed.nested(pa.array([files[3], files[1], files[3], files[0]]))
    assert [len(rows) for rows in nested.to_pylist()] == [3, 1, 3, 3]
    assert nested[0].as_py() == nested[2].as_py()
    (table,) = embed(files[:1])
    assert nested[3].as_py() == table.to_pylist()
    assert nested.type == pa.list_(pa.struct(list(embed.schema)))
    assert embed.nested([]).to_pylist() == []


def test_a_name_that_cannot_be_stored_is_a_failure(files, embed):
    names = ["no \udcff.mp4", files[1]]
    rows = [row.as_py() for row in embed.nested(names)]
    assert [[(row["path"], row["error"][:15]) for row in file] for file in rows] == [
        [("no \\udcff.mp4", "has a name that")],
        [(files[1], "is not a video,")],
    ]


def test_content_that_is_not_wanted_is_not_decoded(files, embed):
    known = identify(files[0]).video_id
    rows = [
        row
        for batch in embed.batches(files[:2], unwanted=lambda ids: {known} & set(ids))
        for row in segments_of(batch)
    ]
    assert [(row.file.path, row.segment, row.error[:6]) for row in rows] == [
        (files[0], None, ""),
        (files[1], None, "is not"),
    ]


def test_daft_runs_it(files, tmp_path, monkeypatch):
    pytest.importorskip("daft", reason="Daft is not installed: pip install daft")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "engines.md").read_text("utf-8")
    (code,) = re.findall(r"```py\n(import daft\n.*?)```", page, re.DOTALL)
    exec(code, {"paths": files, "__name__": "__main__"})
    rows = parquet.read_table("segments-of-daft").column("row").to_pylist()
    assert [row["path"] for row in rows] == files  # clips of a second have one segment
    assert [bool(row["error"]) for row in rows] == [False, True, True, False]
