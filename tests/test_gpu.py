"""On a GPU: what the CPU computes, from queries, videos, training and the benchmarks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from benchmarks import latency, throughput
from dits_adapter import DITSQueryEncoder, VideoEncoder
from dits_adapter.training._loop import evaluate
from dits_adapter.training.config import Recipe, TrainingConfig
from dits_adapter.training.run import fit
from tests.training.test_frozen import gap_pairs
from tests.video.clips import picture, write_clip

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here"),
]
DEVICE = "cuda"
TEXTS = ["a large red circle rises over a meadow", "a small square", ""]


def test_queries_and_vectors():
    here, there = (DITSQueryEncoder.from_pretrained("demo-dits", device=device) for device in ("cpu", DEVICE))
    for name in ("encode_query", "encode_document"):
        np.testing.assert_allclose(getattr(there, name)(TEXTS), getattr(here, name)(TEXTS), atol=1e-4)
    vectors = np.random.default_rng(0).normal(size=(9, here.space.video.width)).astype(np.float32)
    ours, path = there.adapt(vectors, return_trajectory=True)
    np.testing.assert_allclose(ours, here.adapt(vectors), atol=1e-4)
    assert path.shape == (11, *vectors.shape)
    given = torch.from_numpy(vectors).to(DEVICE)
    adapted = there.artifact.adapter.to(DEVICE).adapt(given)
    assert (adapted.device, adapted.dtype) == (given.device, torch.float32)


def test_videos(tmp_path):
    paths = [write_clip(tmp_path / f"{n}.mp4", [picture(number) for number in range(n)]) for n in (20, 30, 50)]
    here, there = (VideoEncoder.from_pretrained("demo-clip", device=device) for device in ("cpu", DEVICE))
    for ours, theirs in zip(there.encode_video(paths, batch_frames=24), here.encode_video(paths), strict=True):
        np.testing.assert_allclose(ours.frame_vectors, theirs.frame_vectors, atol=1e-4)
        np.testing.assert_allclose(ours.vector, theirs.vector, atol=1e-4)


def test_training():
    pairs, validation = gap_pairs(300), gap_pairs(100, seed=1)
    recipe = Recipe(
        sampler={"depth": 1, "steps": 2},
        training=TrainingConfig(epochs=5, batch_size=64),
    )
    found = []
    for device in ("cpu", DEVICE):
        adapter, history = fit(recipe, pairs, validation, device=device, progress=False)
        assert history
        found.append(np.mean(1 / evaluate(adapter, validation)))
    assert found[1] == pytest.approx(found[0], abs=0.05)


def test_the_forms_of_dits_agree(tmp_path):
    built = latency.forms("dits-2", latency.sampler(32, {"steps": 2}), tmp_path, torch.device(DEVICE))
    assert {"dits-2", "dits-2, compiled", "dits-2, CUDA graph"} < set(built)
    for rows in (5, 1, 5):
        vectors = np.random.default_rng(rows).normal(size=(rows, 32)).astype(np.float32)
        exact = built["dits-2, unfolded"].adapt(vectors)
        for name, form in built.items():
            tolerance = 0.05 if name.endswith("bfloat16") else 1e-5
            np.testing.assert_allclose(np.asarray(form.adapt(vectors)), exact, atol=tolerance, err_msg=name)


@pytest.mark.slow
def test_benchmarks(tmp_path):
    arguments = ["--device", DEVICE, "--threads", "1", "--seconds", "0", "--out", str(tmp_path)]
    assert latency.main([*arguments, "--batch", "1", "--width", "64"]) == 0
    found = TypeAdapter(latency.Latency).validate_json((tmp_path / "latency.json").read_bytes())
    assert {"dits-10, CUDA graph", "floor of dits-10: reading float32"} < {t.name for t in found.timings}
    assert sum(found.profile.values()) == pytest.approx(1)
    assert throughput.main([*arguments, "--clips", "2", "--texts", "8"]) == 0
