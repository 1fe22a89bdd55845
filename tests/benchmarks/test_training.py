"""The benchmark of training times what it says; how long things take is no test's business."""

from __future__ import annotations

import torch

from benchmarks import training


def test_every_form_is_timed(tmp_path, capsys):
    arguments = ["--steps", "2", "--width", "16", "--batch", "8", "--rounds", "1", "--out", str(tmp_path)]
    threads = torch.get_num_threads()
    assert training.main(arguments) == 0
    assert torch.get_num_threads() == threads
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "training.md").read_text()
    assert all(name in printed for name in training.forms(2, 16, 8))


def test_the_forms_train_alike():
    losses = {}
    for name in (training.FAITHFUL, "fast, float32"):
        step = training.forms(3, 16, 8)[name]
        losses[name] = [float(step()) for _ in range(5)]
    torch.testing.assert_close(*(torch.tensor(taken) for taken in losses.values()), rtol=1e-5, atol=0)
