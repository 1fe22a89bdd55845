"""Encoders in other processes: pickled, copied and spawned, they travel by name and options."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch

from dits_adapter import DITSQueryEncoder, VideoEncoder
from dits_adapter.adapters import DITSAdapter
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.encoders import load_encoder
from dits_adapter.errors import InputError
from dits_adapter.sampler import SamplerConfig
from dits_adapter.space import EmbeddingSpace
from tests.video.clips import picture, write_clip

QUERY = "two dogs chase a ball"
COPIES = {
    "pickle": lambda encoder: pickle.loads(pickle.dumps(encoder)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.fixture(scope="module")
def saved(tiny_clip, tmp_path_factory):
    torch.manual_seed(0)
    adapter = DITSAdapter(SamplerConfig(width=32, depth=1))
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.06)
    folder = tmp_path_factory.mktemp("adapters") / "dits"
    shutil.copytree(tiny_clip, folder.parent / "tiny-clip")
    return Artifact(adapter, EmbeddingSpace.of(load_encoder(tiny_clip))).save(folder)


@pytest.fixture
def film(tmp_path):
    return write_clip(tmp_path / "film.mp4", [picture(n) for n in range(15)])


@pytest.mark.parametrize("way", COPIES)
class TestCopies:
    def test_of_a_query_encoder(self, saved, way, monkeypatch):
        monkeypatch.chdir(saved.parent)
        encoder = DITSQueryEncoder.from_pretrained(saved.name, steps=3)
        encoder.strength, encoder.on_mismatch = 0.5, "warn"  # set later
        monkeypatch.chdir("/")  # the folder was a relative one
        copied = COPIES[way](encoder)
        assert (copied.strength, copied.on_mismatch, copied.artifact.adapter.steps) == (0.5, "warn", 3)
        np.testing.assert_array_equal(copied.encode_query(QUERY), encoder.encode_query(QUERY))

    def test_of_a_query_encoder_stay_plain_where_a_bypass_is_in_force(self, saved, other_clip, way):
        encoder = DITSQueryEncoder.from_pretrained(saved, encoder=other_clip, on_mismatch="bypass")
        with pytest.warns(UserWarning, match="plain CLIP"):
            encoder.load()
        assert COPIES[way](encoder)._bypassed

    def test_of_a_video_encoder(self, tiny_clip, film, way):
        encoder = VideoEncoder.from_pretrained(tiny_clip, frames=3)
        encoder.decoder, encoder.limit = "pyav", 0.5
        copied = COPIES[way](encoder)
        assert (copied.frames, copied.decoder, copied.limit) == (3, "pyav", 0.5)
        np.testing.assert_array_equal(copied.encode_video(film).vector, encoder.encode_video(film).vector)

    def test_of_what_has_no_name_are_refused(self, saved, tiny_clip, way):
        named = DITSQueryEncoder.from_pretrained(saved)
        for encoder in (DITSQueryEncoder(named._backend), VideoEncoder(load_encoder(tiny_clip))):
            with pytest.raises(InputError, match=r"from_pretrained\(name\)"):
                COPIES[way](encoder)


def test_name_and_options_make_the_same_encoder(saved):
    encoder = DITSQueryEncoder.from_pretrained(saved, steps=2, strength=0.7, backend="torch")
    name, options = json.loads(json.dumps([encoder.name_or_path, encoder.options]))
    again = DITSQueryEncoder.from_pretrained(name, **options)
    np.testing.assert_array_equal(again.encode_query(QUERY), encoder.encode_query(QUERY))
    assert again.options == encoder.options


@pytest.mark.slow
def test_a_pool_of_spawned_processes_gets_them(saved, tiny_clip, film):
    queries = DITSQueryEncoder.from_pretrained(saved)
    videos = VideoEncoder.from_pretrained(tiny_clip, frames=3)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        query, segment = pool.submit(queries.encode_query, QUERY), pool.submit(videos.encode_video, film)
        np.testing.assert_allclose(query.result(), queries.encode_query(QUERY), atol=1e-6)
        np.testing.assert_allclose(segment.result().vector, videos.encode_video(film).vector, atol=1e-6)
