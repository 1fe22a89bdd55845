"""Vectors made elsewhere, imported from NumPy and Parquet files."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dits_adapter.cli import main
from dits_adapter.data import _arrow_source, _numpy_source
from dits_adapter.data._numpy_source import NumPyTexts, NumPyVideos
from dits_adapter.data.cache_writer import CacheWriter
from dits_adapter.data.import_vectors import VectorFiles, import_vectors
from dits_adapter.data.pairs import load_pairs
from dits_adapter.data.provenance import SOURCES
from dits_adapter.encoders import Encoder, load_encoder
from dits_adapter.errors import (
    InputError,
    MissingExtraError,
    SpaceMismatchError,
)
from dits_adapter.space import EmbeddingSpace
from dits_adapter.video.encoder import VideoEncoder
from tests.data.fakes import FRAMES, Killed, contents
from tests.hostile_files import written
from tests.stores.fakes import unit


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
        """Write the NumPy files; return the arguments of `VectorFiles`."""
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
        """Write the two Parquet files with some columns changed; return the arguments of `VectorFiles`."""
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
    monkeypatch.setattr(_numpy_source, "BLOCK_ROWS", 7)
    monkeypatch.setattr(_arrow_source, "BLOCK_ROWS", 7)


def of(encoder: Encoder) -> tuple[EmbeddingSpace, Encoder]:
    return EmbeddingSpace.of(encoder, frames=FRAMES), encoder


@pytest.mark.filterwarnings("error")
class TestImport:
    @pytest.mark.parametrize("form", ["numpy", "parquet"])
    def test_what_is_read_back_is_what_was_given(self, own, clip, tmp_path, small_blocks, form):
        files = own.save() if form == "numpy" else own.save_parquet()
        report = import_vectors(VectorFiles(**files), tmp_path / "cache", *of(clip), progress=False)
        assert (report.texts, report.videos, report.new_texts, report.failures) == (90, 40, 90, [])
        pairs = load_pairs(tmp_path / "cache")
        np.testing.assert_array_equal(pairs.text, own.text)
        np.testing.assert_array_equal(pairs.labels, own.labels)
        np.testing.assert_allclose(pairs.video, unit(own.video), atol=1e-7)
        np.testing.assert_array_equal(pairs.frames[:], own.frames)
        assert list(pairs.video_ids) == own.ids
        assert pairs.space == EmbeddingSpace.of(clip, frames=FRAMES)
        again = import_vectors(VectorFiles(**files), tmp_path / "cache", *of(clip), progress=False)
        assert (again.new_texts, again.new_videos) == (0, 0)

    def test_a_killed_import_goes_on(self, own, clip, tmp_path, small_blocks, monkeypatch):
        files = own.save()
        import_vectors(VectorFiles(**files), tmp_path / "clean", *of(clip), progress=False)
        write, written = CacheWriter._write, []

        def dying(self: CacheWriter, kind: Any, span: range, *rest: Any) -> None:
            if (kind, span.start) == ("videos", 9):
                raise Killed
            written.append((kind, span.start))
            write(self, kind, span, *rest)

        monkeypatch.setattr(CacheWriter, "_write", dying)
        with pytest.raises(Killed):
            import_vectors(VectorFiles(**files), tmp_path / "cache", *of(clip), progress=False)
        monkeypatch.setattr(CacheWriter, "_write", write)
        report = import_vectors(VectorFiles(**files), tmp_path / "cache", *of(clip), progress=False)
        assert (report.new_texts, report.new_videos) == (0, 40 - 9)
        assert contents(tmp_path / "cache") == contents(tmp_path / "clean")

    @pytest.mark.parametrize("form", ["numpy", "parquet"])
    def test_sources_and_confidences_come_along(self, own, clip, tmp_path, form):
        sources = ["caption", "human", ""] * 30
        confidences = [0.25, None, 1.0] * 30
        if form == "parquet":
            files = own.save_parquet(
                texts_source=[source or None for source in sources], texts_confidence=confidences
            )
        else:
            rows = [
                f'{own.ids[label]},"{text}",{source},{"" if confidence is None else confidence}\n'
                for label, text, source, confidence in zip(
                    own.labels, own.captions, sources, confidences, strict=True
                )
            ]
            (tmp_path / "marks.csv").write_text("video_id,text,source,confidence\n" + "".join(rows))
            saved = own.save()
            files = {name: saved[name] for name in ("texts", "videos", "ids")} | {"pairs": tmp_path / "marks.csv"}
        import_vectors(VectorFiles(**files), tmp_path / "cache", *of(clip), progress=False)
        marked = load_pairs(tmp_path / "cache").marks
        assert [SOURCES[code] for code in marked.sources] == ["caption", "human", "human"] * 30
        assert marked.confidences.tolist() == [0.25, 1.0, 1.0] * 30

    def test_the_least_that_can_be_given(self, own, clip, tmp_path):
        files = own.save()
        np.save(files["videos"], own.video[own.labels].astype(np.float16))
        with pytest.warns(UserWarning, match="without the texts themselves it cannot be checked"):
            import_vectors(
                VectorFiles(texts=files["texts"], videos=files["videos"]),
                tmp_path / "cache",
                EmbeddingSpace.of(clip),
                clip,
                progress=False,
            )
        pairs = load_pairs(tmp_path / "cache")
        assert pairs.labels.tolist() == list(range(90))
        assert pairs.video_ids[89] == "89"
        assert pairs.frames is None

    def test_another_encoder_is_caught_by_the_texts(self, own, tmp_path, other_clip):
        with pytest.raises(SpaceMismatchError, match=r"text 0 \('text 0 of video 0'\) is at cosine .* other-clip"):
            import_vectors(
                VectorFiles(**own.save()),
                tmp_path / "cache",
                EmbeddingSpace.of(other := load_encoder(other_clip)),
                other,
                progress=False,
            )
        assert not (tmp_path / "cache").exists()

    def test_texts_in_another_order_are_caught(self, own, clip, tmp_path):
        own.captions.reverse()
        with pytest.raises(SpaceMismatchError, match="in another order than the texts"):
            import_vectors(VectorFiles(**own.save()), tmp_path / "cache", *of(clip), progress=False)

    def test_videos_that_have_nothing_to_do_with_the_texts_are_doubted(self, own, clip, tmp_path):
        own.video = np.random.default_rng(1).normal(size=own.video.shape)
        with pytest.warns(UserWarning, match="not sure that texts are nearer to their own videos"):
            import_vectors(VectorFiles(**own.save()), tmp_path / "cache", *of(clip), progress=False)

    def test_texts_that_were_normalized_are_remarked(self, own, clip, tmp_path):
        own.text = unit(own.text)
        with pytest.warns(UserWarning, match=r"norms of about 1, tiny-clip gives about .* input=raw"):
            import_vectors(VectorFiles(**own.save()), tmp_path / "cache", *of(clip), progress=False)

    def test_files_are_checked_before_a_model_is_loaded(self, own, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(VideoEncoder, "from_pretrained", lambda *_, **__: pytest.fail("was loaded"))
        files = own.save()
        labels = ["--labels", files["labels"]]
        out = ["--encoder", "demo-clip", "--out", str(tmp_path / "cache")]
        for arguments, message in (
            ([files["labels"], files["videos"]], "labels.npy: is int64 of shape (90,)"),
            ([files["texts"], files["videos"]], "say with labels which video"),
            ([files["texts"], files["videos"], *labels, "--ids", files["captions"]], "captions.txt: has 90 lines"),
            ([files["texts"], files["ids"]], "ids.txt: files of vectors end in .npy, .parquet, .arrow"),
            ([files["texts"], tmp_path / "none.npy"], "none.npy: cannot be read"),
        ):
            assert main(["import", *map(str, arguments), *out]) == 1
            assert message in capsys.readouterr().err

    def test_ids_with_blanks_or_suffixes_are_seen_past(self, own, clip, tmp_path):
        spelled = [f" {own.ids[label]}{('', '.mp4', '.MKV')[n % 3]} " for n, label in enumerate(own.labels)]
        files = own.save_parquet(texts_video_id=spelled)
        import_vectors(VectorFiles(**files), tmp_path / "cache", *of(clip), progress=False)
        assert load_pairs(tmp_path / "cache").labels.tolist() == own.labels.tolist()
        files = own.save_parquet(texts_video_id=["v100", *spelled[1:]])
        with pytest.raises(InputError, match=r"row 0: the video 'v100' is not in .*; did you mean 'v10'\?"):
            import_vectors(VectorFiles(**files), tmp_path / "other", *of(clip), progress=False)

    def test_every_encoding_and_line_end_reads_alike(self, own, clip, tmp_path):
        own.ids = [f"video é {n}" for n in range(40)]
        own.captions = [f"猫 {n}" for n in range(90)]
        own.text = clip.embed_texts(own.captions)
        files = own.save()
        ids, captions = (dict(written("\n ".join(values))) for values in (own.ids, own.captions))
        for kind in ids:
            files["ids"].write_bytes(ids[kind])
            files["captions"].write_bytes(captions[kind])
            texts = NumPyTexts(files["texts"], clip.width, captions=files["captions"])
            assert list(NumPyVideos(files["videos"], None, ids=files["ids"]).ids()) == own.ids, kind
            assert [text for _, some in texts.caption_blocks() for text in some] == own.captions, kind

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"text": np.ones((90, 5))}, r"text.npy: is float64 of shape \(90, 5\); floats of shape \(any, 32\)"),
            ({"text": np.ones((90, 32), int)}, "text.npy: is int64"),
            ({"text": np.array([{}])}, "text.npy: is no .npy array of numbers.*Python objects"),
            ({"labels": np.arange(89)}, r"labels.npy: .* shape \(90\) are expected"),
            ({"labels": np.full(90, 40)}, "text 0 belongs to video 40; there are 40"),
            ({"labels": np.full(90, -1)}, "text 0 belongs to video -1"),
            ({"frames": np.ones((39, FRAMES, 32))}, r"frames.npy: .* shape \(40, any, 32\)"),
            ({"ids": [f"v{n % 39}" for n in range(40)]}, "videos 0 and 39 have the same id, 'v0'"),
            ({"ids": ["", *map(str, range(39))]}, "ids.txt: has 39 lines that are not blank; 40 are expected"),
            ({"ids": ["x" * 2000, *map(str, range(39))]}, "video 0: the id .* longer than 1024 bytes"),
            ({"ids": ["a"]}, "ids.txt: has 1 line that is not blank; 40 are expected"),
            ({"captions": ["a"] * 91}, "captions.txt: has 91 lines that are not blank; 90 are expected"),
        ],
    )
    def test_files_that_do_not_fit(self, own, clip, tmp_path, change, message):
        for name, value in change.items():
            setattr(own, name, value)
        files = own.save()
        if "labels" in change:
            del files["captions"]
        with pytest.raises(InputError, match=message):
            import_vectors(VectorFiles(**files), tmp_path / "cache", *of(clip), progress=False)

    @pytest.mark.parametrize("form", ["numpy", "parquet"])
    def test_captions_that_are_no_texts(self, own, clip, tmp_path, small_blocks, form):
        own.captions[52] = "x" * 200_000
        files = own.save() if form == "numpy" else own.save_parquet()
        with pytest.raises(InputError, match=r"(line 53: the|, row 52:) text has 200,000 characters"):
            import_vectors(VectorFiles(**files), tmp_path / "cache", *of(clip), progress=False)

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
            import_vectors(VectorFiles(**files), tmp_path / "cache", *of(clip), progress=False)

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
            import_vectors(VectorFiles(**files), tmp_path / "cache", *of(clip), progress=False)

    def test_files_of_other_kinds(self, own, clip, tmp_path, monkeypatch):
        files = own.save()
        with pytest.raises(InputError, match=r"none\.npy: cannot be read"):
            import_vectors(
                VectorFiles(texts=tmp_path / "none.npy", videos=files["videos"]),
                tmp_path / "cache",
                EmbeddingSpace.of(clip),
                clip,
            )
        with pytest.raises(InputError, match="say with labels which video"):
            import_vectors(
                VectorFiles(texts=files["texts"], videos=files["videos"]),
                tmp_path / "cache",
                EmbeddingSpace.of(clip),
                clip,
            )
        parquet = tmp_path / "a.parquet"
        parquet.write_text("nonsense")
        with pytest.raises(InputError, match="in Parquet and Arrow the columns are"):
            import_vectors(
                VectorFiles(texts=parquet, videos=parquet, ids=files["ids"]),
                tmp_path / "c",
                EmbeddingSpace.of(clip),
                clip,
            )
        pytest.importorskip("pyarrow")
        with pytest.raises(InputError, match=r"a\.parquet: is no Parquet file"):
            import_vectors(VectorFiles(texts=parquet, videos=parquet), tmp_path / "cache", *of(clip))

    def test_parquet_without_pyarrow_names_the_extra(self, clip, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(MissingExtraError, match=r"pip install \"dits-adapter\[parquet\]\""):
            import_vectors(
                VectorFiles(texts=tmp_path / "a.parquet", videos=tmp_path / "b.parquet"),
                tmp_path / "cache",
                EmbeddingSpace.of(clip),
                clip,
            )

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
        assert load_pairs(tmp_path / "cache").space.video.frames == FRAMES
