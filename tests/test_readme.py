"""The README's promises: its Python runs, its commands exist, CI runs the command that it names."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dits_adapter.artifact.artifact import Artifact
from dits_adapter.cli import main
from tests.walk import run_commands, run_python

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python_blocks_run(code, tmp_path, monkeypatch, capsys):
    from benchmarks.clips.dataset import write_clip
    from benchmarks.clips.scenes import scenes

    (tmp_path / "my-videos").mkdir()
    for scene in scenes("test")[:2]:
        write_clip(scene, tmp_path / "my-videos" / f"{scene.name}.mp4")
    monkeypatch.chdir(tmp_path)
    run_python(code, ROOT / "README.md", monkeypatch)
    assert capsys.readouterr().out.strip()


def test_the_walk_on_the_demos_clips(tmp_path, monkeypatch):
    from benchmarks.clips.dataset import item_of, write_clip
    from benchmarks.clips.scenes import scenes

    clips = tmp_path / "results" / "demo" / "clips" / "test"
    clips.mkdir(parents=True)
    with (clips / "pairs.jsonl").open("w") as pairs:
        for scene in scenes("test")[:24]:
            record = item_of(scene)
            write_clip(scene, clips / record.video)
            pairs.write(json.dumps({"video": record.video, "text": record.captions}) + "\n")
    (walk,) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "demo.md").read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    frozen, torchrun, joint = walk.partition("torchrun")
    run_commands(frozen)
    lines = (clips / "pairs.jsonl").read_text().splitlines(keepends=True)
    (clips / "pairs.jsonl").write_text("".join(lines[:8]))  # CLIP's own weights are the slowest to train
    run_commands(torchrun + joint)
    results = tmp_path / "results"
    assert "**Recommendation: " in (results / "compare" / "comparison.md").read_text()
    for picture in ("curve", "gap/histograms", "gap/plane", "gap/trajectories"):
        assert (results / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    assert Artifact.load(results / "joint").kind == "joint"


@pytest.mark.parametrize("command", sorted(set(re.findall(r"dits-adapter ([a-z-]+)", README))))
def test_commands_exist(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out


def test_ci_runs_the_command_that_the_readme_names():
    assert re.search(r"^    make test\b", README, re.MULTILINE)
    assert re.search(r"^make (--jobs \d )?test\b", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()


def test_wheel_installs_one_package(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("needs git to leave out ignored files")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    import zipfile

    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"dits_adapter"}
    assert "dits_adapter/py.typed" in names
    assert any(name.startswith("dits_adapter/pretrained/demo-dits/") for name in names)
    assert wheel.stat().st_size < 20 * 2**20
