"""All benchmarks end to end: look-alikes in each dataset's format, real clips, a small random CLIP."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import ablations, paper, report, run
from benchmarks.clips.scenes import SPLIT_SIZES
from benchmarks.costs import Costs
from benchmarks.datasets import DATASETS
from benchmarks.datasets.lookalike import write_lookalike
from benchmarks.generated import made_up_space
from benchmarks.result import Result
from benchmarks.vectors import embed_splits
from dits_adapter.adapters import DITSAdapter
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.data.pairs import load_pairs
from dits_adapter.encoders import load_encoder
from dits_adapter.evaluation.metrics import ranks
from dits_adapter.sampler import SamplerConfig
from dits_adapter.space import EmbeddingSpace
from dits_adapter.training.config import JointRecipe
from dits_adapter.training.joint.captions import Captions
from dits_adapter.video.encoder import VideoEncoder
from dits_adapter.xpool import XPool, XPoolScores
from tests.spaces import renamed

DIDEMO = "DiDeMo (Distinct Describable Moments) test, tiny-clip"
QUERIES = {"msrvtt": 4, "lsmdc": 4, "didemo": 4, "vatex": 20, "charades": 4, "demo": 20}
ROWS = [
    "identity",
    "mean-shift",
    "procrustes",
    "ridge",
    "low-rank-affine",
    "contrastive-linear",
    "mlp-1",
    "dits-1",
    "mlp-best",
    "dits-best",
]


@pytest.fixture
def command(tmp_path, clips, tiny_clip):
    def build(name, *more):
        root = tmp_path / name
        if not root.exists():
            write_lookalike(name, root, clips)
        common = ["--encoder", str(tiny_clip), "--epochs", "1", "--out", str(tmp_path / "out")]
        steps = [] if "--ablation" in more else ["--steps", "1"]
        return [name, "--root", str(root), *common, *steps, *more]

    return build


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_runs_from_its_files_to_the_table(name, command, tmp_path, capsys):
    rows = ROWS if name == "msrvtt" else ["identity", "ridge", "dits-1"]
    assert run.main(command(name, "--qdrant", ":memory:", "--only", *rows[1:])) == 0
    printed = capsys.readouterr().out
    found = Result.read(tmp_path / "out" / "result.json")
    comparison = found.comparison
    assert [row.name for row in comparison.rows] == rows
    assert comparison.sizes["test"] == (QUERIES[name], 4)
    assert {len(row.text_to_video.ranks) for row in comparison.rows} == {QUERIES[name]}
    assert {len(row.video_to_text.ranks) for row in comparison.rows} == {4}
    # Held out of the training videos where the dataset has no split for it.
    own = "val" in DATASETS[name].splits
    videos = {split: comparison.sizes[split][1] for split in ("train", "validation")}
    assert videos == ({"train": 8, "validation": 2} if own else {"train": 7, "validation": 1})
    assert any("instead of" in line for line in found.deviations)
    embedded = [f"embedding of {split}" for split in ("train", "test", *["val"] * own)]
    assert list(found.costs) == [*embedded, "training", "evaluation"]
    assert all(cost.process_mib > 100 and cost.seconds > 0 and not cost.resumed for cost in found.costs.values())
    assert all(f"\n| {stage} " in printed for stage in found.costs)
    assert (paper.COSTS["training"] in printed) == (name == "msrvtt")
    assert f"Seed {found.seed}; processor " in printed
    assert f"decord2 {comparison.environment['decord2']}" in printed
    for figures in paper.DATASETS.get(name, {}):
        assert f"{figures} (quoted from the paper)" in printed
    assert printed.startswith((tmp_path / "out" / "result.md").read_text().rstrip("\n"))
    assert (tmp_path / "out" / "result.png").read_bytes()[:4] == b"\x89PNG"

    scorers = {row.scorer: row for row in found.scorers if row.queries == "identity"}
    marked = [name.partition(",")[0] for name, row in scorers.items() if row.uses_other_queries]
    assert marked == ["QB-Norm", "dual softmax"]
    plain = comparison["identity"].text_to_video
    assert scorers["pooled cosine"].retrieval == plain
    assert scorers["Qdrant, exact"].retrieval.metrics == plain.metrics


def test_a_second_run_embeds_and_trains_only_what_is_missing(command, tmp_path):
    some = ("--only", "ridge", "mlp-1", "dits-1")
    assert run.main(command("msrvtt", *some)) == 0
    out = tmp_path / "out"
    first = Result.read(out / "result.json")
    shutil.rmtree(out / "adapters" / "mlp-1")
    (out / "result.json").unlink()
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert run.main(command("msrvtt", *some)) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    second = Result.read(out / "result.json")
    assert {stage for stage, cost in second.costs.items() if not cost.resumed} == {"evaluation"}
    assert "the rest by an earlier run" in second.markdown()
    for before, after in zip(first.comparison.rows, second.comparison.rows, strict=True):
        assert dataclasses.replace(before, microseconds=0) == dataclasses.replace(after, microseconds=0)


def test_vectors_of_an_earlier_run_need_no_dataset(command, tmp_path):
    some = ("--only", "dits-1")
    assert run.main(command("vatex", *some)) == 0
    first = Result.read(tmp_path / "out" / "result.json")
    again = ["vatex", "--vectors", str(tmp_path / "out" / "vectors"), "--steps", "1", "--epochs", "1"]
    assert run.main([*again, *some, "--out", str(tmp_path / "again")]) == 0
    second = Result.read(tmp_path / "again" / "result.json")
    assert second.comparison.sizes == first.comparison.sizes
    assert second.comparison["dits-1"].text_to_video == first.comparison["dits-1"].text_to_video
    assert second.deviations == ("vectors as given, vectors: their origin is not checked",)


def test_each_test_split_has_a_result_of_its_own(command, tmp_path):
    some, other = ["--only", "ridge"], ["--test", "test-999"]
    for more in (some, [*some, *other], [*other, "--ablation", "gap"]):
        assert run.main(command("lsmdc", *more)) == 0
    found = {path.stem: Result.read(path) for path in (tmp_path / "out").glob("*.json")}
    sizes = {name: result.comparison.sizes["test"] for name, result in found.items()}
    assert sizes == {"result": (4, 4), "result-test-999": (3, 3), "gap-test-999": (3, 3)}


def test_videos_that_are_missing_or_broken_are_left_out_and_named(command, tmp_path):
    arguments = command("vatex")
    folder = tmp_path / "vatex" / "VATEX_Videos"
    (folder / "test0_000000_000010.mp4").unlink()
    (folder / "test1_000000_000010.mp4").write_bytes(b"no video")
    assert run.main([*arguments, "--only", "ridge"]) == 0
    found = Result.read(tmp_path / "out" / "result.json")
    assert found.comparison.sizes["test"] == (10, 2)
    (said,) = (line for line in found.deviations if "could not be read" in line)
    assert said.startswith("test: 2 of 4 videos could not be read, the first is test0_000000_000010 (")
    assert said.endswith("left out with their 10 texts")


def test_only_the_span_of_the_record_is_embedded(clips, tiny_clip, tmp_path):
    write_lookalike("didemo", tmp_path / "didemo", clips)
    half = DATASETS["didemo"].model_copy(update={"span": (0, 0.5)})
    where = {"root": tmp_path / "didemo", "videos": None, "encoder": str(tiny_clip), "costs": Costs()}
    pairs, _ = embed_splits(half, ["val"], tmp_path / "half", **where)
    encoder = VideoEncoder(load_encoder(tiny_clip))
    for vector, clip in zip(pairs["val"].video, clips["val"], strict=True):
        first, _ = encoder.iter_segments(clip.path, segment_seconds=0.5)
        np.testing.assert_allclose(vector, first.vector, atol=1e-5)
        assert vector @ encoder.encode_video(clip.path).vector < 1 - 1e-4


def test_splits_that_overlap_are_refused(command, capsys):
    assert run.main(command("didemo", "--test", "val")) == 1
    assert "must be different splits" in capsys.readouterr().err


def test_without_a_single_video_it_says_where_it_looked(command, tmp_path, capsys):
    arguments = command("charades")
    shutil.rmtree(tmp_path / "charades" / "Charades_v1_480")
    assert run.main(arguments) == 1
    assert f"none of its 8 videos lies under {tmp_path / 'charades'} (TR000, …)" in capsys.readouterr().err


def test_the_check_opens_no_video_and_trains_nothing(command, tmp_path, capsys):
    assert run.main(command("lsmdc", "--check")) == 0
    assert "test: 4 queries over 4 videos, 4 found" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lsmdc", "--vectors", "DIR", "--check"], "--check looks at a dataset on disk: give --root"),
        (["demo", "--check"], "--check looks at a dataset on disk: give --root"),
        (["vatex"], "say where the data is, with --root or --vectors"),
        (["demo", "--ablation", "gap", "--qdrant", ":memory:"], "--qdrant belongs to the main table"),
        (["demo", "--ablation", "gap", "--steps", "5"], "--steps belongs to the main table"),
        (["demo", "--videos", "DIR"], "--videos belongs to --root"),
        (["own", "--vectors", "DIR", "--encoder", "demo-clip"], "may name a trained adapter beside them"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        run.main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://127.0.0.1:1", "http://127.0.0.1:1 gives no usable answer"),
        ("results/index", "expected a server's URL (http://localhost:6333) or :memory:"),
    ],
)
def test_a_qdrant_that_is_not_there_is_noticed_before_anything_long_starts(
    location, message, command, tmp_path, capsys
):
    assert run.main(command("msrvtt", "--qdrant", location)) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_a_root_the_demo_makes_its_clips(tiny_clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for split, size in {"train": 3, "val": 2, "test": 2}.items():
        monkeypatch.setitem(SPLIT_SIZES, split, size)
    fast = ["--encoder", str(tiny_clip), "--only", "mean-shift"]
    assert run.main(["demo", *fast]) == 0
    assert len(list((tmp_path / "results" / "clips").rglob("*.mp4"))) == 7
    found = Result.read(tmp_path / "results" / "benchmarks" / "demo" / "result.json")
    assert found.comparison.sizes == {"train": (15, 3), "validation": (10, 2), "test": (10, 2)}


@pytest.fixture
def joint(tiny_clip, tmp_path):
    """A joint artifact; its adapter moves texts, its head looks at some frames more than at others."""
    torch.manual_seed(0)
    head, adapter = XPool(32), DITSAdapter(SamplerConfig(width=32, depth=1, steps=2))
    for parameter in [*head.parameters(), *adapter.parameters()]:
        torch.nn.init.normal_(parameter, std=0.3)
    space = renamed(EmbeddingSpace.of(load_encoder(tiny_clip), frames=4), "mine")
    return Artifact(adapter, space, {"dataset": "my pairs"}, encoder=tiny_clip, xpool=head).save(tmp_path / "mine")


def test_a_joint_adapter_is_a_row_and_reranks_with_its_head(joint, command, tmp_path):
    assert run.main(command("msrvtt", "--encoder", str(joint), "--only", "ridge")) == 0
    found = Result.read(tmp_path / "out" / "result.json")
    assert found.comparison.space.startswith("mine [")
    row = "mine (--encoder)"
    assert [r.name for r in found.comparison.rows] == ["identity", "ridge", row]
    assert any(line.startswith(f"{row} was trained elsewhere, on my pairs: ") for line in found.deviations)

    test, artifact = load_pairs(tmp_path / "out" / "vectors" / "test"), Artifact.load(joint)
    assert test.frames.shape == (4, 4, 32)
    adapted = artifact.adapter.for_inference().adapt(test.text)
    frames = 10 * np.asarray(test.frames)  # of a norm as in training; those of the cache are of unit norm
    expected = ranks(XPoolScores(artifact.xpool, adapted, test.text, frames), test.labels)
    scorers = {s.scorer: s for s in found.scorers if s.queries == row}
    assert scorers["X-Pool over frames"].retrieval.ranks == tuple(expected)
    assert scorers["pooled, top 50 by X-Pool"].retrieval.ranks == tuple(expected)  # all four are on the list
    assert not scorers["X-Pool over frames"].uses_other_queries
    assert scorers["pooled cosine"].retrieval == found.comparison[row].text_to_video
    assert {s.queries for s in found.scorers} == {"identity", "ridge", row}


def test_joint_training_on_what_a_run_left_holds_out_the_videos_that_the_run_does(command, tmp_path):
    assert run.main(command("msrvtt", "--only", "identity")) == 0
    vectors = tmp_path / "out" / "vectors"
    _, theirs = Captions.read(vectors / "train.jsonl").split(JointRecipe().validation, JointRecipe().seed)
    _, ours = load_pairs(vectors / "train").split(run.DEFAULTS.validation, run.DEFAULTS.seed)
    assert [Path(video).stem for video in theirs.videos] == list(ours.video_ids)


def test_without_a_head_nothing_is_reranked_by_x_pool(command, tmp_path):
    assert run.main(command("msrvtt", "--only", "ridge")) == 0
    scorers = [row.scorer for row in Result.read(tmp_path / "out" / "result.json").scorers]
    assert "pooled, top 50 by MaxSim" in scorers
    assert not any("X-Pool" in name for name in scorers)


def test_a_frozen_adapter_may_be_tried_on_vectors_of_its_space_only(command, joint, tmp_path, capsys):
    assert run.main(command("msrvtt", "--only", "identity")) == 0
    vectors = ["msrvtt", "--vectors", str(tmp_path / "out" / "vectors"), "--only", "identity"]
    again = [*vectors, "--out", str(tmp_path / "again")]
    fitting = tmp_path / "fitting"
    space = load_pairs(tmp_path / "out" / "vectors" / "test").space
    Artifact(DITSAdapter(SamplerConfig(width=32, depth=1, steps=2)), space).save(fitting)
    assert run.main([*again, "--encoder", str(fitting)]) == 0
    rows = Result.read(tmp_path / "again" / "result.json").comparison.rows
    assert [row.name for row in rows] == ["identity", "fitting (--encoder)"]
    with pytest.warns(UserWarning, match="frames 4 against 12"):
        assert run.main([*again, "--encoder", str(joint)]) == 0
    stranger = tmp_path / "stranger"
    Artifact(DITSAdapter(SamplerConfig(width=32, depth=1, steps=2)), made_up_space("stranger", 32)).save(stranger)
    assert run.main([*again, "--encoder", str(stranger)]) == 1
    assert "cannot be compared" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ablation", "rows"),
    [
        (
            "timestamps",
            [f"dits-{n}{noise}{on}" for on in ("", ", noise on") for noise in ("", "-noisy") for n in (1, 20)],
        ),
        ("condition", [f"dits-condition-{name}" for name in ("text", "video", "both", "none")]),
        ("gap", ["dits-t-v", "dits-v-t"]),
        (
            "prior",
            [
                "fixed-prior-1",
                "fixed-prior-0.1",
                "diffusion-l2",
                "diffusion-l1",
                "diffusion-fine-tuned",
                "dits-10",
            ],
        ),
        (
            "noise",
            [
                f"dits-{training}-{text}{inference}"
                for inference in ("", ", noise on")
                for training in ("quiet", "noisy")
                for text in ("unit", "raw")
            ],
        ),
    ],
)
def test_ablations(ablation, rows, command, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ablations, "TIMESTAMPS", (1, 20))
    assert run.main(command("msrvtt", "--ablation", ablation, "--learning-rates", "5e-4")) == 0
    found = Result.read(tmp_path / "out" / f"{ablation}.json")
    assert [row.name for row in found.comparison.rows] == ["identity", *rows]
    printed = capsys.readouterr().out
    assert all(f"{name} (quoted from the paper)" in printed for name in paper.ABLATIONS.get(ablation, {}))
    if ablation == "noise":  # plain CLIP plus noise of norm ~ 26 in 32 dimensions is nearly pure noise
        quiet, noisy = (found.comparison[f"dits-quiet-unit{on}"] for on in ("", ", noise on"))
        assert quiet.text_to_video.ranks != noisy.text_to_video.ranks


def test_the_report_merges_seeds_and_datasets(command, tmp_path, capsys):
    runs = [("charades", "1"), ("charades", "2"), ("didemo", "1")]
    paths = []
    for name, seed in runs:
        out = tmp_path / f"{name}-{seed}"
        assert run.main(command(name, "--seed", seed, "--only", "ridge", "--out", str(out))) == 0
        paths.append(str(out / "result.json"))
    capsys.readouterr()
    assert report.main(paths) == 0
    printed = capsys.readouterr().out
    head, _, *table = printed.split("\n\n")[0].splitlines()
    assert [cell.strip() for cell in head.split("|")[2:4]] == [
        "Charades v1 test, tiny-clip",
        DIDEMO,
    ]
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:4]] for line in table}
    plain = Result.read(tmp_path / "charades-1" / "result.json").comparison["identity"].text_to_video.metrics
    assert cells["identity"][0] == f"{plain.r1:.1f} ± 0.0 / {plain.r5:.1f} ± 0.0 / {plain.r10:.1f} ± 0.0"
    assert "±" not in cells["identity"][1]
    assert cells["DITS, CLIP B/16 (quoted from the paper)"] == ["27.4 / 52.0 / 64.3", "55.8 / 80.5 / 87.5"]
    assert "2 seeds, recommended" in printed
    assert "NOT the published protocol" in printed
    assert report.main([*paths, "--pair", "ridge", "identity"]) == 0
    *_, second = capsys.readouterr().out.rstrip().split("\n\n")
    head, _, *gains = second.splitlines()
    assert head.split("|")[1].strip() == "ridge minus identity, text to video"
    assert [line.split("|")[1].strip() for line in gains] == ["Charades v1 test, tiny-clip", DIDEMO]
    gained = [
        Result.read(tmp_path / f"charades-{seed}" / "result.json").comparison["ridge"].over_plain["r1"].difference
        for seed in (1, 2)
    ]
    assert gains[0].split("|")[2].strip().startswith(f"{np.mean(gained):+.1f} [")
    assert report.main([*paths, "--pair", "ridge", "rigde"]) == 1
    assert "--pair rigde: not every run of Charades v1 test, tiny-clip has that row" in capsys.readouterr().err
    assert report.main([*paths, paths[0]]) == 1
    assert "with seed 1 is among the results already" in capsys.readouterr().err
    (tmp_path / "other.json").write_text("{}")
    assert report.main([str(tmp_path / "other.json")]) == 1
    assert "is no result of layout version 1" in capsys.readouterr().err


def test_only_some_rows(command, tmp_path, capsys):
    assert run.main(command("msrvtt", "--only", "ridge", "mean-shift")) == 0
    found = Result.read(tmp_path / "out" / "result.json")
    assert [row.name for row in found.comparison.rows] == ["identity", "mean-shift", "ridge"]
    assert run.main(command("msrvtt", "--only", "rigde")) == 1
    assert "--only rigde: no such row; there are identity, " in capsys.readouterr().err


def test_own_vectors_are_called_by_their_folder(command, tmp_path, capsys):
    assert run.main(command("msrvtt", "--only", "ridge")) == 0
    vectors = (tmp_path / "out" / "vectors").rename(tmp_path / "my clips")
    own = ["own", "--vectors", str(vectors), "--only", "ridge", "--out", str(tmp_path / "own")]
    assert run.main(own) == 0
    assert "# my clips, test" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run.main(["own", "--root", str(tmp_path)])
    assert "own stands for vectors" in capsys.readouterr().err
