"""The circle of feedback, by commands and in a browser: choices, pairs, an adapter, and the page ranks by it."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from playwright.sync_api import expect

from benchmarks.clips.dataset import item_of, write_clip
from benchmarks.clips.scenes import scenes
from dits_adapter import EmbeddingSpace, VideoSearch, load_encoder
from dits_adapter.adapters.affine import fitted_affine
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.cli import main
from tests.serve.test_page import browser, expect_names, search, wait_for_about  # noqa: F401

CLIPS, CAPTIONS = 40, 2


@pytest.mark.slow
def test_from_clicks_to_the_adapter_that_the_page_ranks_by(browser, tmp_path, monkeypatch):  # noqa: F811
    """The first adapter turns queries away from their videos, so that what is learnt from choices is better."""
    pytest.importorskip("lancedb")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    items = []
    for scene in scenes("test")[:CLIPS]:
        items.append(item_of(scene))
        write_clip(scene, tmp_path / "videos" / items[-1].video)
    place = ["--store", "lancedb://index", "--collection", "clips"]
    assert main(["ingest", "videos", "--encoder", "demo-clip", *place]) == 0
    turned = fitted_affine("ridge", np.eye(128)[::-1].copy(), np.zeros(128))
    Artifact(turned, EmbeddingSpace.of(load_encoder("demo-clip"))).save("adapter")
    line = ["serve", *place, "--adapter", "./adapter", "--feedback", "feedback.jsonl", "--port", "0"]
    command = [sys.executable, "-m", "dits_adapter.cli", *line, "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            home = re.search(r"http://\S+", server.stdout.readline())[0]
            page = browser.new_page()
            page.goto(home)
            chosen = 0
            for item in items:
                for caption in item.captions[:CAPTIONS]:
                    search(page, caption)
                    right = page.locator("section.plain li").filter(has_text=item.video).locator(".right")
                    if right.count() == 0:
                        page.get_by_role("button", name="None of these").click()
                        expect(page.locator(".said")).to_contain_text("none of these")
                        continue
                    right.click()
                    expect(right).to_have_attribute("aria-pressed", "true")
                    chosen += 1
            assert chosen > CLIPS
            assert main(["pairs", "feedback.jsonl", "--out", "pairs.jsonl"]) == 0
            made = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text("utf-8").splitlines()]
            right = {(caption, item.video) for item in items for caption in item.captions}
            assert {(pair["text"][0], pair["video"].rsplit("/")[-1]) for pair in made} <= right
            assert main(["embed", "pairs.jsonl", *place, "--encoder", "demo-clip", "--out", "cache"]) == 0
            train = ["train", "cache", "--preset", "gentle-linear", "--test-fraction", "0.4"]
            assert main([*train, "--out", "adapter", "--promote-if-better"]) == 0
            promoted = Artifact.load("adapter").digest
            wait_for_about(page, "digest", promoted)
            search(page, items[0].captions[-1])
            expect(page.get_by_role("status")).to_contain_text("The adapter is a new one.")
            with VideoSearch("adapter", "lancedb://index", "clips") as own:
                found = own.search(items[0].captions[-1], limit=10).matches
            expect_names(page, "adapted", [match.hit.path.rsplit("/")[-1] for match in found])
            page.close()
        finally:
            server.terminate()
