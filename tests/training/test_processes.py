"""Frozen training in several processes: the same loss, gradients and weights as in one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import distributed

from dits_adapter.adapters import fresh_adapter
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.errors import DITSError, InputError
from dits_adapter.training import _batches as batches
from dits_adapter.training import _processes
from dits_adapter.training._loop import _is_there, train
from dits_adapter.training._losses import contrast
from dits_adapter.training._processes import (
    average_gradients,
    naming_lost_process,
    processes,
    wait_for_all,
    whole_shares,
)
from dits_adapter.training.config import TrainingConfig
from tests.training.launched import ENVIRONMENT, kill_two, run_two
from tests.training.test_frozen import WIDTH, gap_pairs

CONFIG = TrainingConfig(epochs=2, batch_size=40, learning_rate=(1e-3, 1e-2), ema=0.5, hard_negatives=0.2)
ADAPTERS = {"dits": {"depth": 1, "steps": 2}, "dits-of-videos": {"depth": 1, "steps": 2}, "contrastive-linear": {}}


def loss_and_gradients(name: str) -> dict[str, torch.Tensor]:
    """Run one batch in float64, in which two texts share a video."""
    torch.manual_seed(0)
    adapter = fresh_adapter(name, WIDTH, ADAPTERS[name]).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    text, video = torch.randn(2, 8, WIDTH, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 5, 6])
    scale = torch.nn.Parameter(torch.tensor(5.0, dtype=torch.float64))
    loss = contrast(adapter.train(), text, video[labels], labels, scale)
    loss.backward()
    average_gradients([*adapter.parameters(), scale])
    named = [*adapter.named_parameters(), ("scale", scale)]
    return {"loss": loss.detach(), **{key: p.grad for key, p in named if p.grad is not None}}


def trained(checkpoints=None) -> dict[str, torch.Tensor]:
    pairs, validation = gap_pairs(90, 2).split(0.2, seed=0)
    torch.manual_seed(int(os.environ.get("RANK", "0")))  # the first process decides
    adapter = fresh_adapter("dits", WIDTH, {"depth": 1, "steps": 2})
    train(adapter, pairs, validation, CONFIG, checkpoints=checkpoints, progress=False)
    return adapter.state_dict()


def one_of_two(rank: int, folder) -> None:
    """Run one of two processes: whatever the tests below look at."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE="2")
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    with processes("auto") as device:
        assert device == "auto"  # a group that is there is taken
    found = {f"{name}/{key}": value for name in ADAPTERS for key, value in loss_and_gradients(name).items()}
    found |= {f"trained/{key}": value for key, value in trained(folder / "checkpoints").items()}
    with pytest.raises(InputError, match="batches of 41 pairs cannot be shared by 2 processes; set batch_size"):
        train(
            fresh_adapter("dits", WIDTH, {"depth": 1}),
            gap_pairs(90),
            gap_pairs(20),
            TrainingConfig(batch_size=41),
        )
    few = batches.Batches(gap_pairs(23), TrainingConfig(batch_size=40), torch.device("cpu"))
    assert [len(rows) for rows in few.rows(1)] == [22]
    with pytest.raises(InputError, match="1 pair is too few for 2 processes"):
        whole_shares(1)
    mine = folder / "mine"
    if rank == 0:
        mine.touch()
        assert _is_there(mine)
    else:
        with pytest.raises(DITSError, match="not there for process 1"):
            _is_there(folder / "another")
    torch.save(found, folder / f"{rank}.pt")
    if rank == 1:
        with pytest.raises(DITSError, match="process 1 of 2 ends because another one has"), naming_lost_process():
            wait_for_all()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """Findings of each of two processes."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.start_processes(one_of_two, (folder,), nprocs=2, start_method="spawn")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", ADAPTERS)
def test_loss_and_gradients_are_those_of_one_process_with_the_whole_batch(name, of_two):
    expected = loss_and_gradients(name)
    assert len(expected) > 3
    for found in of_two:
        for key, value in expected.items():
            torch.testing.assert_close(found[f"{name}/{key}"], value, rtol=1e-9, atol=1e-12, msg=key)


def test_all_end_with_the_weights_of_one_process(of_two):
    expected = trained()
    for key, value in expected.items():
        first, second = (found[f"trained/{key}"] for found in of_two)
        assert torch.equal(first, second)
        torch.testing.assert_close(first, value, rtol=1e-3, atol=1e-4)


def test_an_error_of_one_process_stays_what_it_is():
    with pytest.raises(RuntimeError, match="gloo, by chance"), naming_lost_process():
        raise RuntimeError("gloo, by chance")


def test_one_process_needs_no_others(monkeypatch):
    with processes("cpu") as device:
        assert device == "cpu"
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "", "MASTER_PORT": ""}.items():
        monkeypatch.setenv(name, value)
    with processes("auto") as device:
        assert device == "auto"
        assert not distributed.is_initialized()


@pytest.mark.parametrize(
    ("kind", "lacking", "message"),
    [
        ("mps", {}, "train on CPUs or CUDA GPUs, not on mps; add --device cpu"),
        ("cpu", {"is_gloo_available": False}, "lacks gloo"),
        ("cuda", {"is_nccl_available": False}, "lacks NCCL"),
        ("cuda", {"is_nccl_available": True}, "process 2 on this machine has no GPU, there are 1; start 1"),
        ("cpu", {"is_available": False}, "built without torch.distributed"),
    ],
)
def test_what_cannot_train_together_is_said(kind, lacking, message, monkeypatch):
    monkeypatch.setattr(_processes, "pick_device", lambda _: torch.device(kind))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in lacking.items():
        monkeypatch.setattr(distributed, name, lambda value=value: value)
    facts = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in facts.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message), processes("auto"):
        pass


@pytest.mark.slow
def test_two_processes_killed_and_started_again_write_the_artifact_of_one(tmp_path):
    gap_pairs(300, 2).save(tmp_path / "pairs")
    fields = {"epochs": 6, "batch_size": 40, "learning_rate": 2e-3}
    given = ["--set=sampler.depth=1", *(f"--set=training.{name}={value}" for name, value in fields.items())]
    command = ["train", str(tmp_path / "pairs"), "--preset=deterministic", *given, "--out"]
    two, said, checkpoints = [*command, str(tmp_path / "two")], tmp_path / "said", tmp_path / "two.checkpoints"
    kill_two(two, said, lambda: [*checkpoints.rglob("*.safetensors")])
    assert not (tmp_path / "two").exists()
    assert run_two(two, said) == 0, said.read_text()[-3000:]
    printed = said.read_text()
    assert printed.count("written to") == printed.count("against plain CLIP") == 1
    assert run_two([*two, "--promote-if-better"], said) != 0
    printed = said.read_text()
    assert printed.count("by more than noise: nothing written\nexit code 4, of which torchrun makes 1\n") == 1
    assert "rank      : 0" in printed  # the one that tells is the one that fails: torchrun ends the other one then
    assert "exitcode  : 4" in printed
    alone = [sys.executable, "-m", "dits_adapter.cli", *command, str(tmp_path / "one")]
    subprocess.run(alone, env=ENVIRONMENT, check=True, capture_output=True)
    found, expected = (Artifact.load(tmp_path / name).adapter.state_dict() for name in ("two", "one"))
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-4)
