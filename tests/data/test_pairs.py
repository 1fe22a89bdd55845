"""Pairs in memory and pairs in a cache."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from dits_adapter.data.cache import EmbeddingCache
from dits_adapter.data.pairs import Pairs, load_pairs
from dits_adapter.errors import DITSError, InputError
from tests.data.fakes import FRAMES, WIDTH, run
from tests.stores.fakes import fake_space, unit


def test_pairs_of_a_cache_part_save_and_load_like_pairs_in_memory(fake_pairs, tmp_path):
    run(fake_pairs, tmp_path / "cache")
    cached = load_pairs(tmp_path / "cache")
    cache = EmbeddingCache(tmp_path / "cache")
    plain = Pairs(
        np.asarray(cache.text),
        np.asarray(cache.video),
        cache.labels,
        cache.space,
        tuple(cache.ids),
        np.asarray(cache.frames),
    )
    plain.save(tmp_path / "pairs.safetensors")
    for left, right in zip(
        (cached, *cached.split(0.4, 3), cached.split(0.4, 3)[0].split(0.5, 1)[1]),
        (
            load_pairs(tmp_path / "pairs.safetensors"),
            *plain.split(0.4, 3),
            plain.split(0.4, 3)[0].split(0.5, 1)[1],
        ),
        strict=True,
    ):
        assert len(left) == len(right) > 0
        for name in ("text", "video", "labels", "frames"):
            np.testing.assert_array_equal(np.asarray(getattr(left, name)), np.asarray(getattr(right, name)))
        assert list(left.video_ids) == list(right.video_ids)
        assert left.space == right.space


def test_pairs_refuse_frames_that_do_not_fit():
    text, video = unit(np.eye(2, WIDTH)), unit(np.eye(2, WIDTH))
    with pytest.raises(InputError, match=r"frame vectors have shape \(3, 4, 8\), not \(2, k, 8\)"):
        Pairs(text, video, np.arange(2), fake_space(), frames=np.ones((3, FRAMES, WIDTH), np.float32))
    frames = np.ones((2, FRAMES, WIDTH), np.float32)
    frames[1, 2, 3] = np.nan
    with pytest.raises(InputError, match="frame vectors: row 1 holds NaN"):
        Pairs(text, video, np.arange(2), fake_space(), frames=frames)


def put_tensors(path, header, data=b"", length=None):
    """Write a safetensors file with a header of choice, and a length of it that may be a lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def tensor(shape, size, kind="F32"):
    return {"dtype": kind, "shape": shape, "data_offsets": [0, size]}


@pytest.mark.parametrize(
    ("header", "length"),
    [
        ({"text": tensor([10**12, 512], 4 * 512 * 10**12)}, None),
        ({"text": tensor([10**12, 512], 400)}, None),
        ({"text": tensor([2, 50], 400, "BF16")}, None),
        (b"{}", 2**63),
        (b'{"a":' * 100_000, None),
        ({"__metadata__": {"space": "{}", "video_ids": "[" * 100_000}}, None),
    ],
)
def test_a_header_is_not_believed(tmp_path, header, length):
    path = put_tensors(tmp_path / "pairs.safetensors", header, bytes(400), length)
    with pytest.raises(DITSError, match=r"pairs\.safetensors: is no file of cached pairs.*dits-adapter embed"):
        load_pairs(path)


def test_nested_ids_are_refused(tmp_path):
    pairs = Pairs(np.eye(8, dtype=np.float32), np.eye(8, dtype=np.float32), np.arange(8), fake_space())
    pairs.save(tmp_path / "pairs")
    with safe_open(tmp_path / "pairs", "np") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(tensors, tmp_path / "pairs", metadata | {"video_ids": "[" * 100_000})
    with pytest.raises(DITSError, match="nested too deeply"):
        load_pairs(tmp_path / "pairs")
