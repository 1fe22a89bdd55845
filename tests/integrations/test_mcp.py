"""The MCP server, spoken to by the protocol's own client: in this process, over HTTP, over stdin and stdout."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx2
import numpy as np
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from dits_adapter import (
    BiasBank,
    CollectionMetadata,
    DITSQueryEncoder,
    MemoryStore,
    QdrantStore,
    TimedText,
    VideoFilter,
    VideoSearch,
    apply_bias,
    attach_texts,
)
from dits_adapter.cli import main
from dits_adapter.errors import StoreError
from dits_adapter.integrations.mcp import make_mcp_server
from dits_adapter.serve import _health as health_module
from dits_adapter.serve._mcp import create_mcp_app
from tests.integrations.conftest import QUERY, rows


@pytest.fixture(scope="module")
def calibrated(prepared):
    return DITSQueryEncoder.from_pretrained(prepared / "tiny-calibrated")


def collection(space, segments=3, change=None):
    store = MemoryStore()
    store.create(CollectionMetadata(space=space))
    store.write(rows(segments) if change is None else [change(row) for row in rows(segments)])
    return store


@pytest.fixture
def search(calibrated):
    return VideoSearch(calibrated, collection(calibrated.space))


def call(server, tool, **arguments):
    """Call a tool: its structured answer, or the text of its error."""

    async def run():
        async with Client(server) as client:
            return await client.call_tool(tool, arguments)

    result = asyncio.run(run())
    if result.is_error:
        return result.content[0].text
    return result.structured_content


def found(search, **arguments):
    return call(make_mcp_server(search), "search_videos", **{"query": QUERY, **arguments})


def test_agents_are_told_that_the_tools_only_read(search):
    async def run():
        async with Client(make_mcp_server(search)) as client:
            return client.instructions, (await client.list_tools()).tools

    instructions, tools = asyncio.run(run())
    assert "caption" in instructions
    assert [tool.name for tool in tools] == ["search_videos", "find_similar", "describe_collection"]
    for tool in tools:
        assert tool.annotations.read_only_hint
        assert not tool.annotations.destructive_hint
        assert tool.output_schema["properties"]
    assert all(field.get("description") for tool in tools for field in tool.input_schema["properties"].values())


def test_search_finds_what_video_search_finds(search):
    answer = search.search(QUERY, limit=3, per_video=2)
    said = found(search, limit=3, per_video=2)
    assert [(video["path"], video["start"], video["end"], video["timestamp"]) for video in said["results"]] == [
        (m.hit.path, m.hit.start, m.hit.end, m.hit.timestamp) for m in answer.matches
    ]
    for video, match in zip(said["results"], answer.matches, strict=True):
        assert video["score"] == pytest.approx(match.hit.score, abs=1e-4)
        assert video["probability"] == pytest.approx(match.probability, abs=1e-4)
    assert said["probability_of_any"] == pytest.approx(answer.probability_of_any, abs=1e-4)
    assert said["left_out"] == 0
    later = found(search, limit=1, offset=1)
    assert later["results"][0]["path"] == answer.matches[2].hit.path
    assert later["probability_of_any"] is later["probably_nothing_fits"] is None  # of the best hits alone


def test_conditions_on_the_videos(search):
    videos = VideoFilter(words="7.mp4", min_duration=3, max_duration=20)
    answer = search.search(QUERY, filter=videos)
    said = found(search, path_words="7.mp4", min_duration=3, max_duration=20)
    assert (
        [video["path"] for video in said["results"]] == [match.hit.path for match in answer.matches] == ["/7.mp4"]
    )
    nothing = found(search, path_words="holiday")
    assert nothing["results"] == []
    assert "Nothing was found" in nothing["summary"]


def test_what_is_unlikely_is_left_out_and_counted(search):
    likely = search.search(QUERY, min_probability=0.5)
    assert 0 < len(likely.matches) < likely.found
    said = found(search, min_probability=0.5)
    assert len(said["results"]) == len(likely.matches)
    assert said["left_out"] == likely.found - len(likely.matches)
    assert f"of {likely.found} that were found" in said["summary"]


@pytest.mark.parametrize(("sign", "fits"), [(1, True), (-1, False)])
def test_where_nothing_fits_it_is_said_in_words(calibrated, sign, fits):
    query = calibrated.encode_query(QUERY)
    like_query = collection(calibrated.space, 1, lambda row: replace(row, vector=sign * query))
    said = found(VideoSearch(calibrated, like_query), limit=1)
    assert said["probably_nothing_fits"] is not fits
    assert ("Probably nothing in the collection fits" in said["summary"]) is not fits
    assert (said["probability_of_any"] > 0.5) is fits


def test_an_adapter_without_a_calibration_says_so(encoder):
    search = VideoSearch(encoder, collection(encoder.space))
    said = found(search)
    assert said["probability_of_any"] is said["probably_nothing_fits"] is said["results"][0]["probability"] is None
    assert "min_probability: the adapter was not calibrated" in found(search, min_probability=0.5)
    described = call(make_mcp_server(search), "describe_collection")
    assert described["calibrated"] is False
    assert "dits-adapter calibrate" in described["why_not_calibrated"]


def test_the_collection_is_described(search, calibrated):
    described = call(make_mcp_server(search), "describe_collection")
    assert described == {
        "collection": "videos",
        "store": "memory",
        "tenant": None,
        "videos": 20,
        "segments": 60,
        "space": str(calibrated.space),
        "adapter": calibrated.name_or_path,
        "strength": 1.0,
        "calibrated": True,
        "why_not_calibrated": None,
        "score_bias": 0.0,
        "timestamps": True,
        "said": False,
    }


def test_a_score_bias_is_described_where_searches_take_it(search, calibrated):
    space, probes = calibrated.space, np.array(calibrated.space.text.probes, np.float32)
    texts = [f"scene {n}" for n in range(12)]
    adapted = tuple(map(tuple, np.round(calibrated.adapt(probes).astype(float), 6).tolist()))
    for bank, weight in (
        (BiasBank(calibrated.encode_query(texts), space, adapted), 0.5),
        (BiasBank(calibrated.encode_document(texts), space, space.text.probes), 0.0),  # of plain queries
    ):
        apply_bias(search.store, bank, progress=False)
        described = call(make_mcp_server(VideoSearch(calibrated, search.store)), "describe_collection")
        assert described["score_bias"] == weight


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": " "}, "the text is empty or blank (' '); describe what happens in the video."),
        ({"query": "beach.mp4"}, "is the name of a video file"),
        ({"query": "\ud800"}, "UTF-8"),
        ({"limit": 0}, "limit is 0; it has to be at least 1."),
        ({"limit": "many"}, "limit is 'many'; it has to be a whole number."),
        ({"min_probability": 1}, "min_probability is 1; it has to be below 1."),
        ({"max_length": 3}, "search_videos has no argument 'max_length'; its arguments are: query, limit,"),
    ],
)
def test_refused_arguments_are_said_in_a_sentence(search, arguments, message):
    said = found(search, **arguments)
    assert message in said
    assert "\n" not in said


def test_more_like_a_moment_that_was_found(search):
    server = make_mcp_server(search)
    first = found(search, limit=1)["results"][0]
    alike = call(server, "find_similar", segment=first["segment"], limit=3, per_video=2)
    hits = search.search_like(first["segment"], limit=3, per_video=2).matches
    assert [(video["path"], video["start"]) for video in alike["results"]] == [
        (match.hit.path, match.hit.start) for match in hits
    ]
    assert first["segment"] not in [video["segment"] for video in alike["results"]]
    assert alike["probability_of_any"] is alike["results"][0]["probability"] is None
    others = call(server, "find_similar", segment=first["segment"], path_words="7.mp4")["results"]
    assert {video["path"] for video in others} == {"/7.mp4"}
    assert "has no segment 'nowhere'" in call(server, "find_similar", segment="nowhere")


def test_what_is_said_is_searched_where_there_are_texts(search):
    """The words find the video, with its line; fused with what is seen, no probability is known."""
    silent = found(search, lanes=["seen", "said"])
    assert "has no texts" in silent
    attach_texts(
        search.store, [TimedText("/7.mp4", line) for line in ("Some words.", "The captain explains the storm.")]
    )
    assert call(make_mcp_server(search), "describe_collection")["said"] is True
    both = found(search, query="captains and storms", lanes=["seen", "said"])
    (video,) = [video for video in both["results"] if video["path"] == "/7.mp4"]
    assert video["said"] == "The captain explains the storm."
    assert both["probability_of_any"] is video["probability"] is None
    alone = found(search, query="captains and storms", lanes=["said"])
    assert {video["path"] for video in alone["results"]} == {"/7.mp4"}
    seen = found(search, query="captains and storms")
    assert all(video["said"] is None and video["probability"] for video in seen["results"])
    assert "lanes" in found(search, lanes=["heard"])


def test_a_name_that_no_text_can_hold_is_escaped(calibrated):
    odd = collection(calibrated.space, 1, lambda row: replace(row, path=f"/d\udce9\x1b/{row.path[1:]}"))
    assert found(VideoSearch(calibrated, odd), limit=1)["results"][0]["path"].startswith("/d\\udce9\\x1b/")


def test_a_store_that_fails_is_an_error_of_the_tool(search, monkeypatch):
    def fail(*_):
        raise StoreError("the server at nowhere does not answer.")

    monkeypatch.setattr(search.store, "find", fail)
    assert found(search) == "the server at nowhere does not answer."


class TestHTTP:
    """The application, without a socket."""

    @staticmethod
    @asynccontextmanager
    async def http(search, token, headers):
        app = create_mcp_app(search, token=token, host="127.0.0.1")
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(app), headers=headers) as http,
        ):
            yield http

    @pytest.mark.parametrize("token", [None, "right"])
    def test_an_agent_searches(self, search, token):
        async def run():
            async with (
                self.http(search, token, {"Authorization": f"Bearer {token}"} if token else {}) as http,
                Client(streamable_http_client("http://localhost:8000/mcp", http_client=http)) as client,
            ):
                return await client.call_tool("search_videos", {"query": QUERY, "limit": 2})

        results = asyncio.run(run()).structured_content["results"]
        assert [video["path"] for video in results] == [m.hit.path for m in search.search(QUERY, limit=2).matches]

    @pytest.mark.parametrize(
        ("token", "address", "headers", "status"),
        [
            (None, "http://localhost:8000", {}, 200),
            ("right", "http://any.example", {"Authorization": "Bearer right"}, 200),
            ("right", "http://localhost:8000", {}, 401),
            ("right", "http://localhost:8000", {"Authorization": "Bearer wrong"}, 401),
            (None, "http://elsewhere.example:8000", {}, 400),
            (None, "http://localhost:8000", {"Origin": "http://elsewhere.example"}, 403),
        ],
    )
    def test_who_is_answered(self, search, token, address, headers, status):
        """Clients with the token; without one, this machine, and no web site through a browser on it."""
        sent = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}

        async def run():
            async with self.http(search, token, {"Accept": "application/json", **headers}) as http:
                return await http.post(f"{address}/mcp", json=sent)

        answer = asyncio.run(run())
        assert answer.status_code == status
        assert ("search_videos" in answer.text) is (status == 200)

    def test_operators_ask_what_they_ask_the_page(self, search, monkeypatch):
        """Health and measurements, for whoever may have them; calls of tools are counted, and errors by kind."""
        monkeypatch.setattr(health_module, "_SECONDS", 0)

        def away(self):
            raise StoreError("the store at http://hidden:6333 is away")

        async def run():
            async with self.http(search, "right", {}) as http:
                headers = {"Authorization": "Bearer right"}
                for query in ("a dog", " ", "a cat"):
                    params = {"name": "search_videos", "arguments": {"query": query}}
                    sent = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
                    accept = {"Accept": "application/json", **headers}
                    assert (await http.post("http://any/mcp", json=sent, headers=accept)).status_code == 200
                bare = {path: await http.get(f"http://any{path}") for path in ("/livez", "/healthz", "/metrics")}
                measured = (await http.get("http://any/metrics", headers=headers)).text
                monkeypatch.setattr(MemoryStore, "count", away)
                ill = [await http.get("http://any/healthz", headers=each) for each in ({}, headers)]
                return bare, measured, ill

        bare, measured, ill = asyncio.run(run())
        assert [bare[path].status_code for path in bare] == [200, 200, 401]
        assert 'dits_adapter_tool_seconds_count{outcome="answered",tool="search_videos"} 2.0' in measured
        assert 'dits_adapter_tool_seconds_count{outcome="refused",tool="search_videos"} 1.0' in measured
        assert 'dits_adapter_errors_total{kind="InputError"} 1.0' in measured
        assert 'dits_adapter_request_seconds_count{route="/mcp",status="200"} 3.0' in measured
        assert 'dits_adapter_request_seconds_count{route="other",status="401"} 1.0' in measured
        assert [answer.status_code for answer in ill] == [503, 503]
        assert "hidden" not in ill[0].text
        assert "hidden:6333 is away" in ill[1].json()["detail"]


@pytest.fixture(scope="module")
def index(prepared, calibrated, tmp_path_factory):
    """Options that name a collection in a folder."""
    folder = tmp_path_factory.mktemp("mcp") / "index"
    with QdrantStore(folder) as store:
        store.create(CollectionMetadata(space=calibrated.space))
        store.write(rows())
    return ["--store", str(folder), "--adapter", str(prepared / "tiny-calibrated")]


class TestCommand:
    def test_stdout_carries_the_protocol_alone(self, index, calibrated, tmp_path):
        """A process that prints to stdout as it starts, and a client that would fail over any other line."""
        code = "import sys; from dits_adapter.cli import main; from dits_adapter.stores import open; "
        code += "made = open.open_store; open.open_store = lambda *a, **k: (print('chatter'), made(*a, **k))[1]; "
        code += "sys.exit(main())"
        server = StdioServerParameters(
            command=sys.executable, args=["-c", code, "mcp", *index], env={**os.environ, "OMP_NUM_THREADS": "1"}
        )

        async def run():
            problems = []

            async def note(message):
                problems.extend([message] if isinstance(message, Exception) else [])

            with (tmp_path / "stderr").open("w") as stderr:
                async with Client(stdio_client(server, stderr), message_handler=note) as client:
                    return problems, await client.call_tool("search_videos", {"query": QUERY, "limit": 2})

        problems, result = asyncio.run(run())
        assert problems == []
        with QdrantStore(index[1], space=calibrated.space) as store:
            hits = store.search(calibrated.encode_query(QUERY), limit=2)
        assert [video["path"] for video in result.structured_content["results"]] == [hit.path for hit in hits]
        assert "chatter" in (tmp_path / "stderr").read_text()

    def test_a_token_that_no_header_carries_is_refused(self, index, monkeypatch, capsys):
        monkeypatch.setenv("DITS_ADAPTER_TOKEN", "open sesame")
        assert main(["mcp", *index, "--http", "--port", "0"]) == 1
        assert "an HTTP header carries neither" in (printed := capsys.readouterr().err)
        assert "sesame" not in printed

    def test_options_of_the_port_need_http(self, index, capsys):
        assert main(["mcp", *index, "--port", "9000"]) == 1
        assert "--host and --port are for --http" in capsys.readouterr().err

    def test_a_wrong_collection_is_refused_before_an_agent_is_answered(self, index, capsys):
        assert main(["mcp", *index, "--collection", "vidoes"]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "it has videos" in printed.err
