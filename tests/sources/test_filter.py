"""The filter: texts that fit their own video no better than others are deleted; judged by ranks alone."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dits_adapter import VideoEncoder, filter_pairs
from dits_adapter.errors import InputError
from dits_adapter.sources import _filters
from dits_adapter.sources._filters import fit_probabilities
from dits_adapter.sources._writer import keep_texts
from dits_adapter.vectors import unit
from tests.video.clips import picture, write_clip

WIDTH = 16


def collection(videos=300, *, hub=0.0, seed=0):
    """Draw videos, a true text of each, one of another video each, and a text that is near to all of them."""
    generator = np.random.default_rng(seed)
    video = unit(generator.normal(size=(videos, WIDTH)) + hub).astype(np.float32)
    text = {
        "true": video + 0.5 / WIDTH**0.5 * generator.normal(size=video.shape),
        "swapped": video[generator.permutation(videos)] + 0.5 / WIDTH**0.5 * generator.normal(size=video.shape),
        "generic": np.tile(generator.normal(size=WIDTH), (videos, 1)),
    }
    own = np.arange(videos)
    same = {"true": own, "swapped": videos + own, "generic": np.full(videos, 2 * videos)}
    return text, video, own, same


def kept(kinds, *, scale=1.0, gap=0.0, **options):
    """Return the share of each kind that fits."""
    text, video, own, same = collection(**options)
    vectors = np.concatenate([text[kind] for kind in kinds]).astype(np.float32)
    vectors = (scale * (unit(vectors) + gap)).astype(np.float32)
    wording = np.unique(np.concatenate([same[kind] for kind in kinds]), return_inverse=True)[1]
    fits = fit_probabilities(vectors, video, np.tile(own, len(kinds)), wording) >= 0.5
    return dict(zip(kinds, fits.reshape(len(kinds), -1).mean(axis=1), strict=True))


@pytest.mark.parametrize("options", [{}, {"hub": 0.5}, {"scale": 20.0, "gap": 2.0}, {"videos": 2500}])
def test_what_fits_stays_and_what_does_not_goes(options):
    shares = kept(["true", "swapped", "generic"], **options)
    assert shares["true"] > 0.9
    assert shares["swapped"] < 0.15
    assert shares["generic"] == 0


def test_nothing_is_deleted_where_all_texts_fit():
    assert kept(["true"])["true"] > 0.95


def test_nothing_fits_where_no_text_is_of_its_video():
    assert kept(["swapped"])["swapped"] < 0.1


def test_probabilities_are_honest():
    """A part near p is true of the texts that fit with a probability near p."""
    text, video, own, _ = collection(2000)
    noisy = text["true"] + 0.3 * np.random.default_rng(1).normal(size=video.shape)
    vectors = np.concatenate([noisy, text["swapped"]]).astype(np.float32)
    fits = fit_probabilities(vectors, video, np.tile(own, 2))
    true = np.repeat([True, False], len(own))
    for low in (0.0, 0.2, 0.5, 0.8):
        inside = (fits >= low) & (fits < low + 0.2 + 0.01)
        if inside.sum() > 100:
            assert true[inside].mean() == pytest.approx(fits[inside].mean(), abs=0.1)
    assert true.mean() == pytest.approx(fits.mean(), abs=0.05)


def test_blocks_of_any_size_give_the_same(monkeypatch):
    text, video, own, _ = collection(hub=0.5)
    vectors = np.concatenate([text["true"], text["swapped"]]).astype(np.float32)
    labels = np.tile(own, 2)
    whole = _filters._ranks(vectors, video, labels, 0)
    monkeypatch.setattr(_filters, "_BLOCK", len(vectors) - 1)  # the last text weighs no more than the others
    np.testing.assert_array_equal(_filters._ranks(vectors, video, labels, 0), whole)


def test_ranks_are_those_of_a_slow_reference():
    from dits_adapter.sources._filters import _ranks

    text, video, own, _ = collection(40)
    vectors = (3 * text["true"]).astype(np.float32)
    expected = []
    directions = [vector / np.linalg.norm(vector) for vector in vectors.astype(np.float64)]
    center = sum(directions) / len(directions)
    for direction, label in zip(directions, own, strict=True):
        scores = [float((direction - center) @ other) for other in video.astype(np.float64)]
        nearer = sum(score >= scores[label] for row, score in enumerate(scores) if row != label)
        expected.append((1 + nearer) / len(video))
    np.testing.assert_allclose(_ranks(vectors, video, own, 0), expected)


@pytest.fixture(scope="module")
def encoder():
    return VideoEncoder.from_pretrained("demo-clip", frames=2)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for number in range(24):
        write_clip(folder / f"{number}.mp4", [picture(number * 10)] * 4, "mpeg4")
    return folder


def write_pairs(folder, lines, name="pairs.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_texts_are_deleted_and_the_rest_of_the_file_stays(clips, encoder, monkeypatch):
    """Texts are judged here by what they say: the probabilities are not what is tested."""
    lines = [{"video": f"{n}.mp4", "text": [f"fits {n}", f"odd {n}"], "source": "caption"} for n in range(22)]
    lines[3]["note"] = "kept"
    lines.append({"video": "22.mp4", "text": "odd", "source": "human"})
    lines.append({"video": "0.mp4", "text": "odd too", "source": "speech", "confidence": 0.5})
    lines.append({"video": "gone.mp4", "text": "odd 24", "source": "caption"})
    path = write_pairs(clips, lines)
    asked = []

    def judge(text, video, labels, same):
        asked.append((len(text), len(video), len(np.unique(same))))
        return np.where((np.arange(len(text)) % 2 == 0) & (np.arange(len(text)) < 44), 0.9, 0.1)

    monkeypatch.setattr("dits_adapter.sources.filter.fit_probabilities", judge)
    report = filter_pairs(path, encoder, progress=False)
    assert asked == [(45, 23, 45)]
    assert (report.judged, report.deleted) == (45, 23)
    assert "deleted 23 of 45 texts" in str(report)
    assert "odd 0" in str(report)
    left = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [line["text"] for line in left] == [*([f"fits {n}"] for n in range(22)), "odd", "odd 24"]
    assert left[3]["note"] == "kept"
    assert not path.with_name("pairs.jsonl.vectors").exists()


def test_too_few_videos_to_tell_and_human_texts_are_left(clips, encoder):
    few = write_pairs(clips, [{"video": "0.mp4", "text": "a", "source": "caption"}], "few.jsonl")
    assert "it takes texts of 20 videos" in str(filter_pairs(few, encoder, progress=False))
    human = write_pairs(clips, [{"video": f"{n}.mp4", "text": f"a {n}"} for n in range(24)], "human.jsonl")
    assert "people wrote all of them" in str(filter_pairs(human, encoder, progress=False))


def test_where_nothing_fits_nothing_is_deleted(clips, encoder, monkeypatch):
    path = write_pairs(
        clips, [{"video": f"{n}.mp4", "text": "x", "source": "title"} for n in range(24)], "x.jsonl"
    )
    before = path.read_bytes()
    monkeypatch.setattr("dits_adapter.sources.filter.fit_probabilities", lambda text, *_: np.zeros(len(text)))
    assert "none of them fits" in str(filter_pairs(path, encoder, progress=False))
    assert path.read_bytes() == before


def test_a_file_that_was_changed_meanwhile_stays(tmp_path):
    path = write_pairs(tmp_path, [{"video": "a.mp4", "text": "a"}])
    with pytest.raises(InputError, match="was changed while its texts were judged"):
        keep_texts(path, "0" * 64, [False])
    assert path.read_text("utf-8")
