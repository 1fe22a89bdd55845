"""Encoders and adapters of the hub: commit and files that are loaded, whatever a hub answers."""

from __future__ import annotations

import ast
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import dits_adapter
from dits_adapter import DITSQueryEncoder, VideoEncoder
from dits_adapter._hub import open_repository
from dits_adapter.adapters import mean_shift
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.encoders import Encoder, EncoderSource, load_encoder, load_text_encoder
from dits_adapter.encoders._families import DUAL_FAMILIES, OPEN_CLIP_EXAMPLES
from dits_adapter.encoders.base import CHECKPOINT_FILES
from dits_adapter.errors import ArtifactError
from dits_adapter.space import EmbeddingSpace
from tests.encoders import checkpoints, sentence_models
from tests.encoders.repositories import clip_files, folder_files, hub_repositories, with_code
from tests.hub import FakeHub, running_hub
from tests.waiting import PATIENCE, wait_until

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("*/README.md"),
    *ROOT.glob("integrations/**/*.md"),
]
OWNERS = {name.partition("/")[0] for family in DUAL_FAMILIES.values() for name in family.examples}
NAMED = rf"(?<!/)(?<!declared:)\b(?:{'|'.join({*OWNERS, 'sentence-transformers', 'timm', 'Qwen'})})/[\w.-]*\w"
SAFE = "openai/clip-vit-large-patch14"
PICKLED = "openai/clip-vit-base-patch32"
WRITERS = {
    "facebook/wav2vec2-base-960h",
    "openai/whisper-small",
    "openai/whisper-tiny",
    "Qwen/Qwen2.5-0.5B-Instruct",
    "Qwen/Qwen2.5-VL-3B-Instruct",
}
"""Models that write texts, of the classes that tests/sources loads."""

LOADERS = [load_encoder, VideoEncoder.from_pretrained, DITSQueryEncoder.from_pretrained]

pytestmark = pytest.mark.filterwarnings("ignore:.*is an encoder without an adapter")


def trickle(server):
    """Answer one request with a header that does not end before the client has gone away."""
    with suppress(OSError), server.accept()[0] as connection:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        for _ in range(int(10 * PATIENCE)):
            connection.sendall(b"a")
            time.sleep(0.1)


@pytest.fixture
def marker(tmp_path):
    """File that exists as soon as something of a repository was run."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists()


@pytest.fixture
def hub(tmp_path, monkeypatch, tiny_clip, marker):
    with running_hub(tmp_path / "cache", monkeypatch) as hub:
        for name, files in hub_repositories(tiny_clip, marker).items():
            hub.add(name, files)
        yield hub


def digest(encoder: Encoder) -> tuple[str, str]:
    return encoder.text_digest, encoder.video_digest


def offline(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def gone(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.go_away()
    monkeypatch.setattr(hub, "go_away", lambda: None)


def failing(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.status = 500


UNREACHABLE = [offline, gone, failing]


class TestCommit:
    def test_the_commit_is_recorded_and_loaded_again(self, hub, tiny_clip, other_clip, tmp_path):
        first = hub.repositories[SAFE].references["main"]
        encoder = load_encoder(SAFE)
        space = EmbeddingSpace.of(encoder)
        assert (encoder.name, encoder.revision) == (SAFE, first)
        assert (space.text.revision, space.video.revision) == (first, first)
        rng = np.random.default_rng(0)
        adapter = mean_shift(rng.normal(size=(9, 32)), rng.normal(size=(9, 32)))
        artifact = Artifact(adapter, space).save(tmp_path / "adapter")

        second = hub.add(SAFE, clip_files(other_clip))
        assert load_encoder(SAFE).revision == second
        assert VideoEncoder.from_pretrained(artifact).encoder.revision == first
        queries = DITSQueryEncoder.from_pretrained(artifact)
        np.testing.assert_array_equal(queries.embed(["a dog"]), load_encoder(tiny_clip).embed_texts(["a dog"]))

    def test_what_travels_to_another_process_names_the_commit(self, hub, other_clip):
        first = hub.repositories[SAFE].references["main"]
        for loaded in (VideoEncoder.from_pretrained(SAFE), DITSQueryEncoder.from_pretrained(SAFE)):
            assert loaded.options["revision"] == first

    @pytest.mark.parametrize("revision", ["v1", "refs/pr/7"])
    def test_tags_and_pull_requests_stand_for_their_commit(self, hub, tiny_clip, revision):
        commit = hub.add(PICKLED, clip_files(tiny_clip), revision)
        assert load_encoder(PICKLED, revision=revision).revision == commit
        named = load_encoder(f"{PICKLED}@{revision}")  # as commands take it
        assert (named.name, named.revision) == (PICKLED, commit)
        with pytest.raises(ArtifactError, match="holds no safetensors"):
            load_encoder(PICKLED)

    @pytest.mark.parametrize("revision", ["v9", "0" * 40])
    def test_a_revision_that_is_not_there(self, hub, revision):
        with pytest.raises(ArtifactError, match=f"{SAFE}: has no branch, tag or commit '{revision}'"):
            load_encoder(SAFE, revision=revision)

    @pytest.mark.parametrize("revision", ["../../../etc", "a b", "", "-x"])
    def test_what_is_no_revision(self, hub, revision):
        with pytest.raises(ArtifactError, match="is no branch, tag or commit"):
            open_repository(SAFE, revision or " ")
        assert not hub.requests


class TestFiles:
    def test_only_what_is_read_is_downloaded(self, hub):
        load_encoder(SAFE)
        assert set(hub.downloaded) <= {*CHECKPOINT_FILES, "model.safetensors"}
        assert hub.downloaded[-1] == "model.safetensors"  # whoever has the weights has the others
        assert len(hub.downloaded) == len(set(hub.downloaded))
        assert not [path for _, path, _ in hub.requests if path.startswith("/api/models/")]

    def test_a_commit_that_is_cached_needs_no_request(self, hub):
        commit = load_encoder(SAFE).revision
        hub.forget_requests()
        load_encoder(SAFE, revision=commit)
        assert not hub.requests
        load_encoder(SAFE)
        assert {method for method, _, _ in hub.requests} == {"HEAD"}
        assert {path.rpartition("/")[2] for _, path, _ in hub.requests} == {"config.json"}

    def test_weights_in_several_files(self, hub, tiny_clip, tmp_path):
        whole = load_encoder(tiny_clip)
        whole.model.save_pretrained(tmp_path / "split", max_shard_size="40KB")
        files = clip_files(tiny_clip)
        del files["model.safetensors"]
        shards = {path.name: path.read_bytes() for path in (tmp_path / "split").iterdir()}
        assert len(shards) > 4
        hub.add("someone/split", {**files, **shards})
        assert digest(load_encoder("someone/split")) == digest(whole)

    def test_shards_outside_of_the_repository_are_refused(self, hub, tiny_clip):
        files = clip_files(tiny_clip)
        del files["model.safetensors"]
        index = json.dumps({"weight_map": {"a": "../../../../secret.safetensors"}}).encode()
        hub.add("someone/outside", {**files, "model.safetensors.index.json": index})
        with pytest.raises(ArtifactError, match="lies outside"):
            load_encoder("someone/outside")

    @pytest.mark.parametrize("load", LOADERS)
    def test_unknown_families_are_refused_before_any_weight_is_downloaded(self, hub, load):
        files = {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"", "tokenizer.json": b"{}"}
        hub.add("owner/bert", files)
        with pytest.raises(ArtifactError, match=r"owner/bert: a model of type 'bert'.*known are clip"):
            load("owner/bert")
        assert set(hub.downloaded) == {"config.json"}

    @pytest.mark.parametrize("load", LOADERS)
    def test_pickles_are_refused_with_ids_to_take_instead(self, hub, load):
        with pytest.raises(ArtifactError, match=rf"{PICKLED}: holds no safetensors.*{SAFE}.*refs/pr/NUMBER"):
            load(PICKLED)
        assert "pytorch_model.bin" not in hub.downloaded

    def test_pickles_that_something_else_cached_are_refused(self, hub):
        from huggingface_hub import snapshot_download

        snapshot_download(PICKLED)
        with pytest.raises(ArtifactError, match="holds no safetensors"):
            load_encoder(PICKLED)

    def test_adapters_come_with_what_their_config_names(self, hub, tiny_clip, tmp_path):
        rng = np.random.default_rng(0)
        adapter = mean_shift(rng.normal(size=(9, 32)), rng.normal(size=(9, 32)))
        folder = Artifact(adapter, EmbeddingSpace.of(load_encoder(SAFE))).save(tmp_path / "adapter")
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        commit = hub.add("someone/adapter", {**files, "optimizer.pt": b"", "runs/events": b""})
        hub.forget_requests()
        encoder = DITSQueryEncoder.from_pretrained("someone/adapter")
        assert set(hub.downloaded) == {"config.json", "adapter.safetensors"}
        assert encoder.options["revision"] == commit
        np.testing.assert_allclose(np.linalg.norm(encoder.encode_query("a dog")), 1, rtol=1e-6)


class TestUnreachable:
    @pytest.mark.parametrize("how", UNREACHABLE)
    @pytest.mark.parametrize("name", [SAFE, "sentence-transformers/clip-ViT-B-32"])
    def test_what_is_cached_is_loaded(self, hub, monkeypatch, how, name):
        online = load_encoder(name)
        how(hub, monkeypatch)
        for revision in (None, "main", online.revision):
            assert EncoderSource.find(name, revision).revision == online.revision
        assert digest(load_encoder(name)) == digest(online)

    @pytest.mark.parametrize("how", UNREACHABLE)
    def test_what_something_else_cached_is_loaded(self, hub, monkeypatch, how):
        """Such a cache holds the files, but no notes of those that the repository lacks."""
        from huggingface_hub import snapshot_download

        snapshot_download(SAFE, allow_patterns=["*.json", "*.txt", "*.safetensors"])
        how(hub, monkeypatch)
        assert load_encoder(SAFE).revision == hub.repositories[SAFE].references["main"]

    @pytest.mark.parametrize("how", UNREACHABLE)
    def test_what_is_cached_in_part_is_not_taken_for_the_whole(self, hub, monkeypatch, how):
        EncoderSource.find(SAFE)
        how(hub, monkeypatch)
        with pytest.raises(ArtifactError, match="not in the hub's cache as a whole, and"):
            load_encoder(SAFE)

    @pytest.mark.parametrize("load", LOADERS)
    @pytest.mark.parametrize("how", UNREACHABLE)
    def test_what_is_not_cached_is_said_after_one_attempt(self, hub, monkeypatch, how, load):
        how(hub, monkeypatch)
        reason = {offline: "HF_HUB_OFFLINE is set", gone: "127.0.0.1 cannot be reached", failing: "status 500"}[
            how
        ]
        for revision in (None, "0" * 40):
            hub.forget_requests()
            with pytest.raises(ArtifactError, match=f"{SAFE}: is no folder here, .*{reason}"):
                load(SAFE, revision=revision)
            assert len(hub.requests) == (how is failing)

    def test_a_hub_that_says_nothing_is_not_waited_for(self, hub, monkeypatch):
        monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.2)
        hub.delay = 1.0
        with pytest.raises(ArtifactError, match=r"did not answer within 0\.2 s .*Offline, give a folder"):
            load_encoder(SAFE)
        wait_until(lambda: hub.requests)  # it may have begun to read late
        assert len(hub.requests) == 1

    def test_a_hub_that_sends_a_byte_now_and_then_is_not_waited_for_either(self, hub, monkeypatch):
        """A client's timeout is of one read, and each byte is one."""
        monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.3)
        with socket.create_server(("127.0.0.1", 0)) as server:
            template = f"http://127.0.0.1:{server.getsockname()[1]}/{{repo_id}}/{{revision}}/{{filename}}"
            monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
            threading.Thread(target=trickle, args=(server,), daemon=True).start()
            with pytest.raises(ArtifactError, match=r"did not answer within 0\.3 s"):
                load_encoder("some/one")

    def test_a_mirror_that_knows_addresses_of_files_alone(self, hub):
        hub.api = False
        assert load_encoder(SAFE).revision == hub.repositories[SAFE].references["main"]

    def test_the_environment_names_the_hub(self, hub, tmp_path):
        """In a process of its own, as users set it."""
        code = f"from dits_adapter._hub import open_repository as o; print(o({SAFE!r}).commit)"
        places = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.port}", "HF_HOME": str(tmp_path / "home")}
        run = [sys.executable, "-c", code]
        for offline in ({}, {"HF_HUB_OFFLINE": "1"}):
            ran = subprocess.run(run, env={**os.environ, **places, **offline}, capture_output=True, text=True)
            assert ran.stdout.strip() == hub.repositories[SAFE].references["main"], ran.stderr


class TestAccess:
    def test_gated_repositories_say_what_to_do(self, hub, monkeypatch, capfd):
        hub.repositories[SAFE].gated = True
        with pytest.raises(ArtifactError, match=r"is gated. Accept its terms on its page at 127.*hf auth login"):
            load_encoder(SAFE)
        monkeypatch.setenv("HF_TOKEN", "hf_not_accepted")
        with pytest.raises(ArtifactError, match="is gated") as refused:
            load_encoder(SAFE)
        assert "hf_not_accepted" not in str(refused.value) + "".join(capfd.readouterr())
        monkeypatch.setenv("HF_TOKEN", "hf_accepted")
        assert load_encoder(SAFE).name == SAFE
        to_others = [token for _, path, token in hub.requests if path.startswith("/cdn/")]
        assert to_others
        assert not any(to_others)  # a token stays with the hub

    def test_a_repository_that_is_not_there(self, hub):
        with pytest.raises(
            ArtifactError, match=r"no/where: is no folder here, and 127\.0\.0\.1 shows no such repos"
        ):
            load_encoder("no/where")

    @pytest.mark.parametrize(("status", "said"), [(429, "too many requests"), (401, "refuses the token")])
    def test_refusals(self, hub, status, said):
        hub.status = status
        with pytest.raises(ArtifactError, match=said):
            load_encoder(SAFE)
        assert len(hub.requests) == 1

    @pytest.mark.parametrize("status", [200, 404])
    def test_a_server_that_is_no_hub(self, hub, status):
        hub.status = status
        with pytest.raises(ArtifactError, match="does not answer as a hub does"):
            load_encoder(SAFE)

    def test_a_server_that_names_no_commit(self, hub):
        repository = hub.repositories[SAFE]
        repository.references["main"], repository.commits["latest"] = "latest", {}
        with pytest.raises(ArtifactError, match="does not answer as a hub does"):
            load_encoder(SAFE)

    def test_an_adapter_is_no_encoder(self):
        with pytest.raises(ArtifactError, match="demo-dits: is an adapter; name an encoder"):
            load_encoder("demo-dits")

    @pytest.mark.parametrize("name", ["a b/c", "owner/..", "owner/na--me"])
    def test_what_is_no_hub_id(self, hub, name):
        with pytest.raises(ArtifactError, match="no hub id"):
            load_encoder(name)
        assert not hub.requests

    def test_a_cache_that_cannot_be_written_to(self, hub, monkeypatch, tmp_path):
        (tmp_path / "file").write_text("")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "file" / "cache"))
        with pytest.raises(ArtifactError, match="cannot be written to the hub's cache in"):
            load_encoder(SAFE)


class TestCodeOfARepository:
    @pytest.fixture(autouse=True)
    def _terminal(self, monkeypatch):
        """Somebody who would answer yes."""
        monkeypatch.setattr("builtins.input", lambda *_: "y")
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)

    def test_a_known_family_is_loaded_with_our_code(self, hub, tiny_clip, marker):
        hub.add("someone/code", with_code(clip_files(tiny_clip), marker))
        assert digest(load_encoder("someone/code")) == digest(load_encoder(tiny_clip))

    @pytest.mark.parametrize("load", LOADERS)
    def test_an_unknown_family_is_refused(self, hub, tiny_clip, marker, load):
        hub.add("someone/code", with_code(clip_files(tiny_clip), marker, model_type="theirs"))
        with pytest.raises(ArtifactError, match="a model of type 'theirs'"):
            load("someone/code")

    def test_modules_of_a_repository_are_refused(self, hub, tiny_clip, marker):
        modules = json.dumps([{"path": "", "type": "theirs.Transformer"}]).encode()
        hub.add("someone/code", with_code({**clip_files(tiny_clip), "modules.json": modules}, marker))
        with pytest.raises(ArtifactError, match=r"names the module theirs\.Transformer.*never run"):
            load_encoder("someone/code")

    def test_every_call_that_loads_by_name_says_so(self):
        """Calls of transformers and sentence-transformers, whose classes can run code of a repository."""
        package, calls = Path(dits_adapter.__file__).parent, 0
        for path in package.rglob("*.py"):
            for call in ast.walk(ast.parse(path.read_text("utf-8"))):
                if not isinstance(call, ast.Call) or not isinstance(call.func, (ast.Attribute, ast.Name)):
                    continue
                name = ast.unparse(call.func)
                ours = re.search(r"(cls|DITSQueryEncoder|VideoEncoder|BiasBank|Encoder)\.from_pretrained$", name)
                loads = name.endswith(".from_pretrained") or re.search(r"(^|\.)SentenceTransformer$", name)
                if loads and not ours and not any(keyword.arg == "modules" for keyword in call.keywords):
                    calls += 1
                    assert "trust_remote_code=False" in ast.unparse(call), f"{path}:{call.lineno}"
        assert calls >= 3


class TestNamesInOurTexts:
    """Hub ids that a reader may type."""

    def test_each_works_online_offline_pinned_and_mirrored(self, hub, monkeypatch, tmp_path):
        texts = [*PAGES, *(ROOT / "dits_adapter").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
        pages = "\n".join(text.read_text("utf-8") for text in texts)
        named = set(re.findall(NAMED, pages.replace(f"`{PICKLED}` has none", "")))
        for family in DUAL_FAMILIES.values():
            for name in set(family.examples) - hub.repositories.keys():
                kind = family.model_type if family.model_type != "siglip" else "siglip (Gemma)"
                folder = checkpoints.save(tmp_path / name, kind)
                hub.add(name, folder_files(folder))
                named.add(name)
        named -= set(OPEN_CLIP_EXAMPLES)  # which need a package that is not at hand
        named -= WRITERS
        multilingual = sentence_models.save_texts(tmp_path / "texts", "distilbert", width=32)
        hub.add("sentence-transformers/clip-ViT-B-32-multilingual-v1", folder_files(multilingual))
        assert SAFE in named
        assert named <= hub.repositories.keys()
        for name in sorted(named):
            hub.api = not hub.api  # every other from a mirror
            online = load_text_encoder(name)
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
            assert EncoderSource.find(name).revision == online.revision
            offline = load_text_encoder(name, revision=online.revision)
            assert offline.text_digest == online.text_digest
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
