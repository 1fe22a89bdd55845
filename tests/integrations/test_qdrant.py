"""The shell commands, the scripts and the README of integrations/qdrant, on real clips with a real (tiny) CLIP."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import runpy
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qdrant_client import models

from benchmarks.server import QdrantProcess
from dits_adapter import DITSQueryEncoder, QdrantStore, VideoEncoder
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.cli import main
from dits_adapter.evaluation.calibration import Calibration
from dits_adapter.stores.qdrant.edge._client import EdgeClient
from dits_adapter.xpool import XPool, XPoolReranker
from tests.conftest import ANSWER
from tests.integrations.conftest import write_clip
from tests.stores.conftest import contents
from tests.stores.server import qdrant_client

HERE = Path(__file__).parents[2] / "integrations" / "qdrant"
QUERY = "a red ball rolls away"


def test_mixed_folder_from_the_shell(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = workplace / "videos"
    whole = (videos / "0.mp4").read_bytes()
    (videos / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (videos / "empty.mp4").touch()
    (videos / "text.mp4").write_text("this is no video")
    (videos / "notes.txt").write_text("nor is this")
    ingest = ["ingest", "videos", "--encoder", "tiny-clip", "--segment-seconds", "2"]
    assert main(ingest) == 3
    output = capsys.readouterr().out
    assert "stored   6 videos, 12 segments" in output
    assert "failed   3" in output
    for name in ("cut", "empty", "text"):
        assert re.search(rf"^  {videos}/{name}\.mp4: \w+", output, re.MULTILINE)
    assert "no video extension (.txt)" in output
    assert main(ingest) == 3
    assert "stored   0 videos" in capsys.readouterr().out
    for name in ("cut", "empty", "text"):
        (videos / f"{name}.mp4").unlink()
    assert main(ingest) == 0


@pytest.mark.parametrize("plain", [False, True])
def test_search_from_the_shell_ranks_as_the_vectors_do(
    workplace: Path, capsys: pytest.CaptureFixture[str], plain: bool
) -> None:
    assert main(["ingest", "videos", "--encoder", "tiny-dits"]) == 0
    capsys.readouterr()
    options = ["--adapter", "tiny-dits", "--limit", "4", *(["--plain"] if plain else [])]
    assert main(["search", QUERY, "--json", *options]) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    queries = DITSQueryEncoder.from_pretrained("tiny-dits")
    query = queries.encode_document(QUERY) if plain else queries.encode_query(QUERY)
    videos = VideoEncoder.from_pretrained("tiny-clip").encode_video(sorted((workplace / "videos").iterdir()))
    scores = {video.path: float(video.vector @ query) for video in videos}
    assert [hit["path"] for hit in hits] == sorted(scores, key=lambda path: -scores[path])[:4]
    for hit in hits:
        video = next(video for video in videos if video.path == hit["path"])
        assert hit["score"] == pytest.approx(scores[video.path], abs=1e-5)
        best = int(np.argmax(video.frame_vectors @ query))
        assert hit["timestamp"] == pytest.approx(video.timestamps[best], abs=1e-5)
        assert (hit["start"], hit["end"]) == (0.0, pytest.approx(4.0))
    assert main(["search", QUERY, *options]) == 0
    assert capsys.readouterr().out.count("(best at") == 4


@pytest.mark.parametrize("plain", [False, True])
def test_search_from_the_shell_reranks_what_it_searched_with(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, plain: bool
) -> None:
    torch.manual_seed(0)
    head = XPool(32)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    frozen = Artifact.load(workplace / "tiny-dits")
    Artifact(frozen.adapter, frozen.space, encoder=workplace / "tiny-clip", xpool=head).save(workplace / "joint")
    assert main(["ingest", "videos", "--encoder", "joint", "--segment-seconds", "2"]) == 0
    encoder = DITSQueryEncoder.from_pretrained("joint")
    text = encoder.encode_document(QUERY)
    query = text if plain else encoder.encode_query(QUERY)
    with QdrantStore("video-index", space=encoder.space) as store:
        expected = {
            count: [hit.id for hit in store.search(query, limit=3, rerank=by, candidates=count)]
            for count, by in ((3, XPoolReranker(head, query, text)), (12, XPoolReranker(head, query, text)))
        }
        by_frame = [hit.id for hit in store.search(query, limit=3, rerank="maxsim", candidates=3)]
    assert expected[3] != expected[12]  # else the option could be ignored
    encoded = []
    encode = DITSQueryEncoder._encode
    monkeypatch.setattr(
        DITSQueryEncoder, "_encode", lambda self, *asked: encoded.append(asked) or encode(self, *asked)
    )
    capsys.readouterr()

    def found(*options: str) -> list[str]:
        options = (*options, *(["--plain"] if plain else []))
        assert main(["search", QUERY, "--json", "--adapter", "joint", "--limit", "3", *options]) == 0
        return [hit["id"] for hit in json.loads(capsys.readouterr().out)["hits"]]

    for count, ids in expected.items():
        assert found("--rerank", "xpool", "--candidates", str(count)) == ids
    assert len(encoded) == 4  # the query, and the text that frames are pooled under
    assert found("--rerank", "xpool") == expected[12]
    assert found("--rerank", "maxsim", "--candidates", "3") == by_frame


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rerank", "xpool"], "the adapter tiny-dits has no X-Pool head"),
        (["--candidates", "20"], "nothing is re-ranked; choose how"),
        (["--candidates", "5", "--rerank", "maxsim"], "candidates is 5"),
    ],
)
def test_a_reranking_that_cannot_be_is_refused(
    workplace: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["ingest", "videos", "--encoder", "tiny-clip"]) == 0
    assert main(["search", QUERY, "--adapter", "tiny-dits", *options]) == 1
    assert message in capsys.readouterr().err


def test_search_by_probability_from_the_shell(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calibration = Calibration(slope=16, offset=5, videos=30, queries=60, log_loss=0.3, ece=0.02, answer=ANSWER)
    replace(Artifact.load("tiny-dits"), calibration=calibration).save("calibrated")
    assert main(["ingest", "videos", "--encoder", "tiny-clip", "--segment-seconds", "2"]) == 0

    def search(*options: str) -> str:
        capsys.readouterr()
        assert main(["search", QUERY, "--adapter", "calibrated", *options]) == 0
        return capsys.readouterr().out

    answer = json.loads(search("--json"))
    hits = answer["hits"]
    assert len(hits) == 6  # of as many videos, in 12 segments
    for hit in hits:
        assert hit["probability"] == pytest.approx(calibration.probability(hit["score"], videos=6))
    least = (hits[2]["probability"] + hits[3]["probability"]) / 2
    assert json.loads(search("--json", "--min-probability", str(least))) == {**answer, "hits": hits[:3]}
    first = search("--min-probability", str(least)).splitlines()[0]
    assert first.startswith(f"{hits[0]['probability']:6.1%}  {hits[0]['score']:.3f}  {hits[0]['path']}")
    for share in (0.5, 0.001):
        of_any = calibration.probability_of_any(hits[0]["score"], videos=6, share=share)
        last = search("--answerable", str(share)).splitlines()[-1]
        assert f"{of_any:.1%} that any of the 10 best hits is right, if {share:.0%} of all queries" in last
        assert ("nothing here fits" in last) == (of_any < 0.5) == (share < 0.5)
    assert answer["probability_of_any"] == calibration.probability_of_any(hits[0]["score"], videos=6)
    assert search("--min-probability", "0.9999999").startswith("no video is that likely\n")
    for options in (("--plain",), ("--rerank", "maxsim"), ("--offset", "1")):
        assert json.loads(search("--json", *options))["probability_of_any"] is None
    assert json.loads(search("--json", "--plain"))["hits"][0]["probability"] is None


def test_a_search_by_probability_that_cannot_be_is_refused(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibration = Calibration(slope=16, offset=5, videos=30, queries=60, log_loss=0.3, ece=0.02, answer=ANSWER)
    encoder = replace(Artifact.load("tiny-dits"), calibration=calibration)
    encoder.save("calibrated")
    assert main(["ingest", "videos", "--encoder", "tiny-clip"]) == 0

    def refusal(adapter: str, *options: str) -> str:
        assert main(["search", QUERY, "--adapter", adapter, "--min-probability", "0.5", *options]) == 1
        return capsys.readouterr().err

    assert "dits-adapter calibrate CACHE tiny-dits --out FOLDER" in refusal("tiny-dits")
    assert "leave out --plain" in refusal("calibrated", "--plain")
    assert "leave out --rerank" in refusal("calibrated", "--rerank", "maxsim")
    with closing(EdgeClient(Path("mine"))) as client:
        vectors = models.VectorParams(size=encoder.space.video.width, distance=models.Distance.EUCLID)
        client.create_collection("mine", vectors_config={"video": vectors})
    elsewhere = ["--store", "mine", "--collection", "mine", "--trust-foreign"]
    with pytest.warns(UserWarning, match="does not say which embedding space"):
        no_cosines = refusal("calibrated", *elsewhere)
    assert "are no cosines" in no_cosines
    with pytest.warns(UserWarning, match=r"Euclid distance\. the scores of the collection 'mine' are no cosines"):
        assert main(["search", QUERY, "--adapter", "calibrated", *elsewhere]) == 0
    assert "no probabilities: the scores of the collection 'mine' are no cosines" in capsys.readouterr().err
    for wrong in ("0", "1", "-0.5", "50", "nan", "much"):
        with pytest.raises(SystemExit) as end:
            main(["search", QUERY, f"--min-probability={wrong}"])
        assert end.value.code == 2
        assert "--min-probability" in capsys.readouterr().err


def test_wrong_stores_and_spaces_are_said(
    workplace: Path, other_clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = ["search", QUERY, "--adapter", "tiny-dits"]
    assert main(search) == 1
    assert "video-index: no Qdrant store is here" in capsys.readouterr().err
    assert main(["ingest", "nowhere", "--encoder", "tiny-clip"]) == 1
    assert "nowhere: no such file or folder" in capsys.readouterr().err
    assert not (workplace / "video-index").exists()
    assert main(["ingest", "videos/0.mp4", "--encoder", str(other_clip)]) == 0
    assert main(search) == 1
    error = capsys.readouterr().err
    assert "tiny-clip" in error
    assert "other-clip" in error
    assert main(["ingest", "videos", "--encoder", "tiny-clip"]) == 1
    assert main([*search, "--collection", "vidoes"]) == 1
    assert "no collection 'vidoes'; it has videos" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_killed_in_the_middle_ends_as_one_clean_run(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(6, 40):
        write_clip(workplace / "videos" / f"{seed}.mp4", seed, seconds=2)
    arguments = ["ingest", "videos", "--encoder", "tiny-clip", "--segment-seconds", "1"]
    assert main([*arguments, "--store", "clean"]) == 0
    command = [sys.executable, "-m", "dits_adapter.cli", *arguments]
    screen, terminal = pty.openpty()  # the bar is shown on a terminal only
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    child = subprocess.Popen(command, stderr=terminal)
    os.close(terminal)
    shown = ""
    while not re.search(r"(1[6-9]|[23]\d)(\.\d+)?/40", shown):  # until some of it is stored
        shown += os.read(screen, 1024).decode()  # an OSError once the child has ended
    child.send_signal(signal.SIGKILL)
    os.close(screen)
    assert child.wait() == -signal.SIGKILL
    with QdrantStore("video-index") as store:
        assert 0 < store.count() < 92
    assert main(arguments) == 0
    with QdrantStore("video-index") as store, QdrantStore("clean") as clean:
        found, expected = contents(store), contents(clean)
    assert found.keys() == expected.keys()
    assert len(found) == 92
    for point, (payload, vectors) in expected.items():
        assert found[point][0] == payload
        for name, vector in vectors.items():  # batches differ, and float sums with them
            np.testing.assert_allclose(found[point][1][name], vector, atol=1e-5)


def write_foreign_collection(url: str, name: str) -> None:
    """Write the collection of another program that the README describes."""
    with closing(qdrant_client(url)) as client:
        vectors = {"clip": models.VectorParams(size=32, distance=models.Distance.COSINE)}
        client.create_collection(name, vectors_config=vectors)
        points = [
            models.PointStruct(
                id=number,
                vector={"clip": np.eye(32)[number].tolist()},
                payload={"film": {"id": number, "name": f"Film {number}"}, "url": "", "from": 0.0, "to": 2.0},
            )
            for number in range(4)
        ]
        client.upsert(name, points)


def test_the_readme_does_what_it_says(
    workplace: Path, qdrant_process: Callable[..., QdrantProcess], capsys: pytest.CaptureFixture[str]
) -> None:
    for model in ("clip", "dits"):  # of the bundled models' names, which come first once they are there
        shutil.copytree(f"tiny-{model}", f"demo-{model}")
    url = qdrant_process().url
    readme = (HERE / "README.md").read_text("utf-8").replace("http://localhost:6333", url).replace("\\\n", "")
    write_foreign_collection(url, "my_clips")
    for command in re.findall(r"^dits-adapter (.*)$", readme, re.MULTILINE):
        command = command.replace("sentence-transformers/clip-ViT-B-32", "tiny-clip").replace(
            "my-adapter", "tiny-dits"
        )
        assert main(shlex.split(command)) == 0, command
    output = capsys.readouterr().out
    assert output.count("(best at") == 3
    assert "live is now live-" in output
    assert main(["ingest", "videos", "--store", url, "--segment-seconds", "1"]) == 0
    capsys.readouterr()
    first, second = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    exec(compile(first, "README.md", "exec"), {})
    assert capsys.readouterr().out.count(".mp4") == 3
    found: dict[str, Any] = {}
    exec(compile(second, "README.md", "exec"), found)
    assert [len(hits) for hits in found["both"]] == [3, 3]
    assert len(found["second_page"]) == 3
    assert len(found["by_frames"]) == len(found["exact"]) == 6


def test_the_scripts_run_against_a_server(
    workplace: Path,
    qdrant_server: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    collection = f"videos-{uuid.uuid4().hex}"
    server = ["--url", qdrant_server, "--collection", collection]
    client = qdrant_client(qdrant_server)
    try:
        assert script("ingest")(["videos", *server, "--encoder", "tiny-clip"]) == 0
        assert "stored   6 videos" in capsys.readouterr().out
        assert script("search")([QUERY, *server, "--adapter", "tiny-dits"]) == 0
        output = capsys.readouterr().out
        assert output.count("plain CLIP") == output.count("DITS") == 5
        assert script("search")([QUERY, *server, "--adapter", "tiny-dits", "--vector", "clip"]) == 1
        assert "has no vector 'clip'; it has" in capsys.readouterr().err
    finally:
        client.delete_collection(collection)


def test_an_index_that_was_there_before_is_searched_as_it_is(
    workplace: Path,
    qdrant_server: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    collection = f"mine-{uuid.uuid4().hex}"
    client = qdrant_client(qdrant_server)
    cosine = models.VectorParams(size=32, distance=models.Distance.COSINE)
    client.create_collection(collection, vectors_config={"clip": cosine})
    videos = VideoEncoder.from_pretrained("tiny-clip").encode_video(sorted((workplace / "videos").iterdir()))
    points = [
        models.PointStruct(id=n, vector={"clip": video.vector.tolist()}, payload={"path": video.path})
        for n, video in enumerate(videos)
    ]
    client.upsert(collection, points, wait=True)
    before = client.get_collection(collection).config
    search = [QUERY, "--collection", collection, "--adapter", "tiny-dits", "--vector", "clip"]
    try:
        assert script("search")([*search, "--url", qdrant_server]) == 1
        assert "does not say which embedding space" in capsys.readouterr().err
        with pytest.warns(UserWarning, match="Only its width"):
            assert script("search")([*search, "--url", qdrant_server, "--trust-foreign"]) == 0
        assert capsys.readouterr().out.count(".mp4") == 10
        with pytest.warns(UserWarning, match="Only its width"):
            assert main(["search", *search, "--store", qdrant_server, "--trust-foreign"]) == 0
        assert capsys.readouterr().out.count(".mp4") == 6
        assert client.get_collection(collection).config == before
    finally:
        client.delete_collection(collection)


def script(name: str) -> Callable[[list[str]], int]:
    """The `main` of one of the scripts, loaded as its users run it."""
    run: Callable[[list[str]], int] = runpy.run_path(str(HERE / f"{name}.py"))["main"]
    return run
