"""Joint training from video files: several processes equal one, and the space is a new one."""

from __future__ import annotations

import json
import re

import pytest
import torch

from dits_adapter import DITSQueryEncoder, QdrantStore, VideoEncoder
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.cli import main
from dits_adapter.errors import SpaceMismatchError
from dits_adapter.stores.ingest import ingest
from dits_adapter.training.joint.captions import Captions
from dits_adapter.training.joint.train import train_joint
from tests.training.joint.blocks import FAST, WORDS, Clips, recipe, weights
from tests.training.launched import kill_two, run_two
from tests.video.clips import write_clip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """PAIRS.jsonl of sixteen video files with two texts each, and one file that is no video."""
    folder, clips = tmp_path_factory.mktemp("films"), Clips(16)
    (folder / "broken.mp4").write_bytes(b"no video")
    lines = [{"video": "broken.mp4", "text": "a red dog"}]
    for i, frames in enumerate(clips.frames):
        write_clip(folder / f"{i}.mp4", [*frames, *frames])
        lines.append({"video": f"{i}.mp4", "text": [clips.captions.texts[i], f"{WORDS[i % 14]} {i}"]})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "pairs.jsonl"


@pytest.mark.slow
def test_two_processes_killed_and_resumed_end_with_the_weights_of_one(pairs, tiny_clip, tmp_path):
    settings = {"dropout": 0, "epochs": 4, "validation": 0.2}
    given = [f"--set={name}={value}" for name, value in {**FAST, **settings}.items()]
    two = ["train-joint", str(pairs), "--encoder", str(tiny_clip), *given, "--out", str(tmp_path / "two")]
    said, checkpoints = tmp_path / "said", tmp_path / "two.checkpoints"
    kill_two(two, said, lambda: [*checkpoints.glob("checkpoint-*/trainer_state.json")])
    assert not (tmp_path / "two").exists()
    assert run_two(two, said) == 0, said.read_text()[-3000:]
    assert "without 1 of 17 videos, which cannot be decoded" in said.read_text()
    assert said.read_text().count("written to") == 1

    options = {"encoder": tiny_clip, "dataset": "films", "progress": False}
    with pytest.warns(UserWarning, match="1 of 17 videos"):
        train_joint(Captions.read(pairs), recipe(**settings), tmp_path / "one", **options)
    found, expected = weights(tmp_path / "two"), weights(tmp_path / "one")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)


def test_from_the_shell_to_an_index_of_the_new_space_while_one_of_the_old_is_refused(
    pairs, tiny_clip, tmp_path, capsys
):
    captions = Captions.read(pairs)
    films, original = pairs.parent / "0.mp4", VideoEncoder.from_pretrained(tiny_clip, frames=2)
    settings = [f"--set={name}={value}" for name, value in {**FAST, "epochs": 1}.items()]
    out = tmp_path / "mine"
    command = ["train-joint", str(pairs), "--encoder", str(tiny_clip), "--out", str(out), "--select", "xpool"]
    with pytest.warns(UserWarning, match="without 1 of 17 videos, which cannot be decoded"):
        assert main([*command, *settings]) == 0
    printed, said = capsys.readouterr()
    assert len(printed.splitlines()) == 3  # nothing of the training's own
    assert "Writing model shards" not in said
    assert re.search(r"validation: R@1 [\d.]+ from an index, [\d.]+ under X-Pool over all videos", printed)
    assert Artifact.load(out).training["recipe"]["select"] == "xpool"
    queries = DITSQueryEncoder.from_pretrained(out)
    with QdrantStore(":memory:", "old") as store:
        ingest(store, [films], original)
        with pytest.raises(SpaceMismatchError, match="the adapter goes with videos of mine"):
            queries.check(store)
    with QdrantStore(":memory:", "new", space=queries.space) as store:
        ingest(store, [films], VideoEncoder.from_pretrained(out))
        queries.check(store)
        assert store.search(queries.encode_query(captions.texts[0]))[0].path == str(films)
