"""The search page as its users meet it, in a real browser."""

from __future__ import annotations

import io
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from starlette.types import ASGIApp

from dits_adapter import DITSQueryEncoder, QdrantStore
from dits_adapter.adapters import mean_shift
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.serve import _moment_routes
from dits_adapter.serve._app import create_app
from dits_adapter.serve._feedback import FeedbackRecorder
from dits_adapter.serve._moments import search_image, timeline
from dits_adapter.serve._searcher import CompareOptions, Searcher
from dits_adapter.sources._feedback_file import read_entries
from dits_adapter.stores.memory import MemoryStore
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.video.decode import Video
from tests.serve.conftest import QUERY
from tests.waiting import PATIENCE, wait_until

QUIET = [
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-sandbox",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; without a sandbox, which root cannot have: it only sees our own pages."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no browser: install chromium")
    milliseconds = 1000 * PATIENCE  # a busy machine takes more than the defaults of 5 s and 30 s
    expect.set_options(timeout=milliseconds)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=QUIET, timeout=milliseconds)
        browser.on("context", lambda context: context.set_default_timeout(milliseconds))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[[ASGIApp], str]]:
    """Run applications in threads, and tell their addresses."""
    running = []

    def start(app: ASGIApp) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        # Without a configuration of logging, which would stay for the tests that follow in this process.
        config = uvicorn.Config(app, log_config=None, log_level="warning", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def home(serve, searcher):
    return serve(create_app(searcher))


@pytest.fixture
def page(browser, home) -> Iterator[Page]:
    """A fresh page that may ask nobody but the server, and have no errors."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(home)
    yield page
    page.close()
    assert all(url.startswith(home) for url in asked)
    assert [text for text in complaints if "Failed to load resource" not in text] == []


def search(page: Page, text: str = QUERY) -> None:
    page.get_by_label("What happens in the video?").fill(text)
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("status")).to_contain_text(text)


def expect_names(page: Page, side: str, names: list[str]) -> None:
    """Wait for these files to be the ranking on one side."""
    titles = [f"{rank}. {name}" for rank, name in enumerate(names, start=1)]
    expect(page.locator(f"section.{side} h3")).to_have_text(titles)


def wait_for_about(page: Page, field: str, value: object) -> None:
    """Wait until the server describes itself so."""
    wait_until(lambda: page.evaluate("async () => (await fetch('api/about')).json()")[field] == value, 0.2)


def expect_played(page: Page, video: Locator) -> None:
    """Wait until a video has begun to play; while this process is stopped, it may have ended."""
    page.wait_for_function("video => video.played.length > 0", arg=video.element_handle())


def expected(searcher, side, **options):
    results = getattr(searcher.compare(QUERY, CompareOptions(**options)), side)
    return [result.path.rsplit("/")[-1] for result in results]


def test_both_rankings_stand_side_by_side(page, searcher):
    search(page)
    for side in ("plain", "adapted"):
        expect_names(page, side, expected(searcher, side))
    left, right, way = (
        page.locator(part).bounding_box() for part in ("section.plain", "section.adapted", "figure")
    )
    assert left["x"] + left["width"] <= right["x"] < right["x"] + right["width"] <= way["x"]
    found = searcher.compare(QUERY)
    first = page.locator("section.adapted li").first
    expect(first.locator(".score")).to_have_text(f"{found.adapted[0].score:.3f}")
    before = next(n for n, result in enumerate(found.plain, 1) if result.video_id == found.adapted[0].video_id)
    expect(first.locator(".move")).to_have_text("same place" if before == 1 else f"▲ up from {before}")


def test_the_way_across_the_gap_is_drawn(page, searcher):
    search(page)
    drawn = page.locator("figure > svg")
    assert drawn.locator(".ring").count() == drawn.locator(".disc").count() == 8
    assert drawn.locator(".step").count() == 11
    assert drawn.locator(".other").count() == len(searcher.compare(QUERY).map.cloud)
    words = f"The adapter turns the query by {searcher.compare(QUERY).angle:.0f}°"
    assert page.get_by_role("img", name=words).count() == 1
    page.locator("section.adapted li").first.hover()
    expect(drawn.locator(".disc.lit")).to_have_count(1)


def test_clips_play_from_the_matching_second(page, searcher):
    search(page)
    found = searcher.compare(QUERY).adapted
    place = next(n for n, result in enumerate(found) if "clip-" in result.path)
    item = page.locator("section.adapted li").nth(place)
    item.get_by_role("button", name="Play clip-").click()
    video = item.locator("video")
    expect_played(page, video)
    started = video.evaluate("video => video.played.start(0)")
    # As the page says it: of two frames that are alike, another batch of queries may find the other one.
    named = float(re.search(r"best at ([\d.]+) s", item.inner_text())[1])
    assert started == pytest.approx(named, abs=0.06)
    assert named > 0
    other = page.locator("section.plain li").filter(has_text="long.mp4")
    other.get_by_role("button", name="Play").click()
    expect(video).to_have_js_property("paused", True)


def test_what_the_browser_cannot_play_shows_its_frame_and_says_so(page):
    search(page)
    item = page.locator("section.plain li").filter(has_text="old.mp4")
    item.get_by_role("button", name="Play old.mp4").click()
    expect(item.get_by_text("This browser cannot play the file")).to_be_visible()
    assert "/frame?at=" in item.locator("video").get_attribute("poster")


def test_a_file_that_is_gone_is_told_without_playing_it(page):
    gone = {"detail": "clip.mp4 was changed since it was ingested. Ingest it again."}
    page.route(re.compile(r"/frame\?at="), lambda route: route.fulfill(status=410, json=gone))
    search(page)
    item = page.locator("section.plain li").first
    expect(item.locator(".unplayable")).to_have_text(gone["detail"])
    expect(item.locator(".play")).to_be_hidden()


def test_odd_titles_stay_in_their_place(page, searcher):
    """One of 500 characters is cut, a blank one gives way to the file, one that turns the line around does not."""

    def entitle(route):
        response = route.fetch()
        answer = response.json()
        for result, title in zip(answer["plain"], ("x" * 500, " ", "\u202eevil"), strict=False):
            result["title"] = title
        route.fulfill(response=response, json=answer)

    page.route("**/api/search*", entitle)
    search(page)
    heads = page.locator("section.plain h3")
    expect(heads).to_contain_text(["x" * 500, f"2. {expected(searcher, 'plain')[1]}", "3. \ufffdevil", *[""] * 5])
    assert heads.first.bounding_box()["height"] < 120
    assert page.evaluate("document.documentElement.scrollWidth") == 1400


def test_an_empty_collection_says_so(browser, serve, encoder):
    store = MemoryStore(space=encoder.space)
    store.create(CollectionMetadata(space=encoder.space))
    page = browser.new_page()
    page.goto(f"{serve(create_app(Searcher(store, encoder)))}?query={QUERY}")
    expect(page.get_by_role("status")).to_have_text(
        "Nothing found; the collection is empty. Put videos in with dits-adapter ingest."
    )
    expect(page.locator("figure")).to_be_hidden()
    page.close()


def test_sliders_search_again_and_the_address_keeps_everything(page, searcher):
    search(page)
    strength = page.get_by_label("Strength")
    strength.focus()
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    for side in ("plain", "adapted"):
        expect_names(page, side, expected(searcher, "plain"))
    assert page.locator("section.adapted .move").all_inner_texts() == ["same place"] * 8
    page.get_by_label("Steps").focus()
    page.keyboard.press("Home")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    strength.fill("0.9")
    page.get_by_role("radio", name="DITS").check()
    wanted = expected(searcher, "adapted", steps=3, strength=0.9)
    assert wanted not in (expected(searcher, "plain"), expected(searcher, "adapted"))
    expect_names(page, "adapted", wanted)
    page.reload()
    expect_names(page, "adapted", wanted)
    expect(page.locator("section.plain")).to_be_hidden()
    expect(page.get_by_label("Steps")).to_have_value("3")


def test_back_returns_to_the_search_before(page):
    search(page, "a red ball")
    search(page, "a blue box")
    page.go_back()
    expect(page.get_by_role("status")).to_contain_text("a red ball")
    expect(page.get_by_label("What happens")).to_have_value("a red ball")


def test_filters(page):
    search(page)
    page.get_by_text("Filters").click()
    page.get_by_label("Words in the path").fill("long")
    for side in ("plain", "adapted"):
        expect_names(page, side, ["long.mp4"])
    page.get_by_label("Words in the path").fill("nowhere")
    expect(page.get_by_role("status")).to_contain_text("the filters leave no video")


def test_likely_hits_only(page, searcher):
    search(page)
    everything = searcher.compare(QUERY).adapted
    shown = [f"{100 * hit.probability:.0f} % likely" for hit in everything]
    expect(page.locator("section.adapted .likely")).to_have_text(shown)
    assert page.locator("section.plain .likely").all_inner_texts() == [""] * 8
    page.get_by_text("Filters").click()
    least = page.get_by_label("DITS, at least")
    least.select_option("50 % likely")
    likely = [hit.path.rsplit("/")[-1] for hit in everything if hit.probability >= 0.5]
    assert 0 < len(likely) < 8
    expect_names(page, "adapted", likely)
    expect(page.get_by_role("status")).to_contain_text(f"8 by plain CLIP, {len(likely)} by DITS")
    least.select_option("90 % likely")
    expect(page.locator("#any")).to_contain_text("No video is that likely.")
    least.select_option("50 % likely")
    expect_names(page, "adapted", likely)
    page.reload()
    expect_names(page, "adapted", likely)
    expect(least).to_have_value("0.5")
    page.get_by_role("slider", name="Strength").fill("0.9")
    expect_names(page, "adapted", expected(searcher, "adapted", strength=0.9))
    expect(least).to_be_disabled()
    expect(least).to_have_accessible_description("known at strength 1 and T′ 10 only")
    assert page.locator("section.adapted .likely").all_inner_texts() == [""] * 8


def test_errors_are_shown(page):
    # One route from before the first search on: a request that leaves right after a route was set may pass it by.
    answer = [lambda route: route.continue_()]
    page.route("**/api/search*", lambda route: answer[0](route))
    search(page)
    page.get_by_label("What happens in the video?").fill("beach.mp4")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("name of a video file")
    expect(page.locator("main")).to_be_hidden()
    search(page)
    expect(page.get_by_role("alert")).to_be_empty()
    expect(page.locator("main")).to_be_visible()
    for answer[0], words in (
        (lambda route: route.abort(), "The server does not answer. Is `dits-adapter serve` still running?"),
        (lambda route: route.fulfill(status=502, body="<html>"), "The server answers with the status 502."),
    ):
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text(words)


def test_a_query_sent_before_the_page_knows_its_adapter_is_searched_by_its_defaults(
    browser, serve, searcher, monkeypatch
):
    described, about = threading.Event(), Searcher.about
    monkeypatch.setattr(Searcher, "about", lambda self: described.wait(PATIENCE) and about(self))
    page = browser.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(serve(create_app(searcher)))
    page.get_by_label("What happens in the video?").fill(QUERY)
    page.keyboard.press("Enter")
    page.get_by_role("radio", name="side by side").press("ArrowRight")
    described.set()
    expect_names(page, "adapted", expected(searcher, "adapted"))
    expect(page.get_by_label("Strength")).to_have_value("1")
    expect(page.get_by_role("alert")).to_be_empty()
    assert f"strength=1&steps={searcher.about().trained_steps}" in page.url
    assert complaints == []
    page.close()


def test_moments_are_those_of_the_query_that_was_sent(page, monkeypatch):
    """Another one is being typed while it is searched."""
    typed, compare = threading.Event(), Searcher.compare
    monkeypatch.setattr(Searcher, "compare", lambda *given: typed.wait(PATIENCE) and compare(*given))
    page.get_by_label("What happens in the video?").fill("a blue box")
    page.keyboard.press("Enter")
    page.get_by_label("What happens in the video?").fill("a blue box and a dog")
    with page.expect_request("**/timeline?*") as asked:
        typed.set()
    assert "query=a+blue+box&" in asked.value.url


def test_back_to_before_any_search_ends_the_one_that_is_under_way(page, monkeypatch):
    """Its answer would stand under an empty field, and a picture be looked for that is no longer there."""
    search(page)
    answered = threading.Event()
    waiting = lambda *given: answered.wait(PATIENCE) and search_image(*given)  # noqa: E731
    monkeypatch.setattr(_moment_routes, "search_image", waiting)
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "PNG")
    with page.expect_event("requestfailed", lambda request: "api/image" in request.url):
        file = {"name": "black.png", "mimeType": "image/png", "buffer": content.getvalue()}
        with page.expect_request("**/api/image*"):
            page.get_by_label("or by a picture").set_input_files(file)
        page.evaluate("history.go(-2)")
    expect(page.get_by_label("What happens in the video?")).to_have_value("")
    expect(page.get_by_role("status")).to_contain_text("Two rankings will stand side by side")
    expect(page.locator("main")).to_be_hidden()
    answered.set()
    expect(page.get_by_role("alert")).to_be_empty()


def test_keyboard_alone(page):
    expect(page.get_by_label("What happens in the video?")).to_be_focused()
    page.keyboard.type(QUERY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text(QUERY)
    reached = []
    for _ in range(13):
        page.keyboard.press("Tab")
        focus = page.evaluate(
            "() => { const at = document.activeElement, seen = at.matches('.unseen') ? at.labels[0] : at; "
            "return [at.ariaLabel ?? (at.name || at.id || at.textContent.trim()), "
            "getComputedStyle(seen).outlineStyle] }"
        )
        reached.append(focus[0] or "Search")
        assert focus[1] == "solid", f"no visible focus on {focus[0]}"
        if reached[-1].startswith("Play"):
            break
    assert reached[:6] == ["Search", "picture", "strength", "steps", "view", "Filters"]
    assert reached[-1].startswith("Play")
    page.keyboard.press("Enter")
    expect(page.locator("section.plain video").first).to_be_focused()
    expect(page.locator("section.plain video").first).to_have_js_property("controls", True)
    first, second = (page.locator(f"section.plain li:nth-child({n}) .play") for n in (1, 2))
    page.keyboard.press("Escape")
    expect(first).to_be_focused()
    expect(page.locator("section.plain video").first).to_have_js_property("paused", True)
    page.keyboard.press("ArrowDown")
    expect(second).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    expect(page.locator("section.adapted .play").first).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_label("What happens in the video?")).to_be_focused()


def test_the_moments_of_a_video_are_a_slider(page, searcher):
    """From one matching moment to the next, and Enter plays from there; a click likewise."""
    search(page)
    item = page.locator("section.adapted li").filter(has_text="long.mp4")
    bar = item.get_by_role("slider", name="Moments of long.mp4")
    bar.scroll_into_view_if_needed()
    expect(bar.locator("rect")).to_have_count(48)
    answer = searcher.compare(QUERY).adapted
    video_id = next(result.video_id for result in answer if "long" in result.path)
    moments = timeline(searcher, video_id, searcher.weighted(QUERY)).moments
    fits = [moment for moment in moments if moment.scores["adapted"] >= answer[-1].score]
    assert 1 < len(fits) < 48
    expect(bar.locator("rect.fits")).to_have_count(len(fits))
    bar.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    words = f"{fits[1].start:.1f} to {fits[1].end:.1f} s, {fits[1].scores['adapted']:.3f}"
    expect(bar).to_have_attribute("aria-valuetext", words)
    expect(bar.locator("output")).to_have_text(words)
    page.keyboard.press("Enter")
    video = item.locator("video")
    expect_played(page, video)
    assert video.evaluate("video => video.played.start(0)") == pytest.approx(fits[1].start, abs=0.11)
    video.evaluate("video => video.pause()")
    box = bar.locator("svg").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.76, box["y"] + 5)
    plays = "video => video.currentTime >= 6 && (!video.paused || video.ended)"
    page.wait_for_function(plays, arg=video.element_handle())


def test_more_like_a_moment_or_a_picture(page, searcher, library):
    """The address keeps a moment, the tab a picture; Back leads through all of them."""
    page.get_by_role("slider", name="Strength").fill("0.9")
    search(page)
    expect_names(page, "adapted", expected(searcher, "adapted", strength=0.9))
    first = searcher.compare(QUERY, CompareOptions(strength=0.9)).adapted[0]
    page.locator("section.adapted li").first.get_by_role("button", name="More like this moment").click()
    like = [Path(hit.path).name for hit in searcher.store.search_like(first.id)]
    expect_names(page, "similar", like)
    for hidden in ("section.plain", "section.adapted", "figure"):
        expect(page.locator(hidden)).to_be_hidden()
    expect(page.get_by_text("Adapters move texts, so none has a part in it")).to_be_visible()
    expect(page.get_by_label("Strength")).to_be_disabled()
    page.reload()
    expect_names(page, "similar", like)
    frame = Video(library / "long.mp4").frames_at([1.0]).frames[0]
    content = io.BytesIO()
    Image.fromarray(frame).save(content, "PNG")
    file = {"name": "frame.png", "mimeType": "image/png", "buffer": content.getvalue()}
    page.get_by_label("or by a picture").set_input_files(file)
    expect(page.get_by_role("status")).to_contain_text("Like frame.png: 8 found")
    page.get_by_text("Filters").click()
    for limit, found in ((3, 3), (10, 8)):
        page.get_by_label("Videos", exact=True).fill(str(limit))
        expect(page.get_by_role("status")).to_contain_text(f"Like frame.png: {found} found")
    nearest = searcher.store.search(searcher.encoder.encode_image(frame), limit=1)[0]
    expect(page.locator("section.similar h3").first).to_have_text(f"1. {Path(nearest.path).name}")
    expect(page.get_by_role("img", name="Like frame.png")).to_be_visible()
    page.go_back()
    expect_names(page, "similar", like)
    page.go_forward()
    expect(page.get_by_role("status")).to_contain_text("Like frame.png")
    page.goto("about:blank")
    page.go_back()
    expect(page.get_by_role("status")).to_contain_text("Like frame.png: 8 found")
    assert "strength=0.9" in page.url  # which the next text is searched with
    page.reload()
    expect(page.locator("section.similar h3").first).to_have_text(f"1. {Path(nearest.path).name}")
    expect(page.get_by_role("img", name="Like frame.png")).to_be_visible()
    page.go_back()
    expect_names(page, "similar", like)
    page.get_by_label("or by a picture").set_input_files(file | {"name": "no.png", "buffer": b"no"})
    expect(page.get_by_role("alert")).to_have_text("This browser cannot read “no.png” as a picture.")
    page.get_by_label("What happens in the video?").fill(QUERY)
    page.keyboard.press("Enter")
    expect_names(page, "adapted", expected(searcher, "adapted", strength=0.9))
    expect(page.locator("section.similar")).to_be_hidden()
    expect(page.get_by_label("Strength")).to_be_enabled()
    assert "strength=0.9" in page.url


def test_one_ranking_is_a_grid_that_stands_still(page):
    page.goto(f"{page.url}?query={QUERY}&view=adapted")
    cards = page.locator("section.adapted li")
    expect(cards).to_have_count(8)
    boxes = [cards.nth(n).bounding_box() for n in range(3)]
    assert boxes[0]["y"] == boxes[1]["y"] == boxes[2]["y"]
    assert boxes[0]["x"] < boxes[1]["x"] < boxes[2]["x"]
    page.mouse.wheel(0, 2000)
    page.wait_for_function("() => scrollY > 0")
    long = page.locator("section.adapted li").filter(has_text="long.mp4")
    expect(long.locator("rect")).to_have_count(48)  # its timeline has been filled
    page.mouse.wheel(0, -4000)
    page.wait_for_function("() => scrollY === 0")
    assert [cards.nth(n).bounding_box() for n in range(3)] == boxes


@pytest.mark.parametrize("width", [320, 360, 768, 1024])
def test_narrow_screens(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    search(page)
    page.get_by_text("Filters").click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    left, right = (page.locator(f"section.{side}").bounding_box() for side in ("plain", "adapted"))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    controls = page.locator("button:visible, input:visible, summary")
    boxes = controls.evaluate_all("all => all.map(at => at.getBoundingClientRect().toJSON())")
    assert len(boxes) > 30
    assert all(box["width"] > 0 and box["left"] >= 0 and box["right"] <= width for box in boxes)


def test_everything_has_a_name(page):
    search(page)
    page.get_by_text("Filters").click()
    controls = page.locator("button:visible, input:visible, video, figure > svg, [role=slider]")
    named = (
        "at => at.ariaLabel || at.labels?.length || at.textContent.trim() || at.getAttribute('aria-labelledby')"
    )
    assert controls.count() > 50
    assert controls.evaluate_all(f"all => all.filter(at => !({named})(at)).map(at => at.outerHTML)") == []
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("h1").count() == 1


def test_axe_finds_nothing_to_mend(page):
    """Names, roles, landmarks and contrast, by axe-core: of both rankings, of one, and in the dark."""
    axe = Axe()
    page.emulate_media(reduced_motion="reduce")  # else it may look while the rankings fade in
    search(page)
    page.get_by_text("Filters").click()
    assert axe.run(page).response["violations"] == []
    page.locator("section.adapted li").first.get_by_role("button", name="More like this moment").click()
    expect(page.locator("section.similar rect")).not_to_have_count(0)
    page.emulate_media(color_scheme="dark")
    assert axe.run(page).response["violations"] == []


def test_the_api_page_lists_what_can_be_asked(page, home):
    page.get_by_role("link", name="API").click()
    expect(page.get_by_role("heading", name="GET /api/search")).to_be_visible()
    expect(page.get_by_role("row", name="strength number or null").first).to_contain_text("0 to 1")
    expect(page.get_by_text("Takes image/*.")).to_be_visible()
    expect(page.get_by_role("heading", name="SideBySide")).to_be_visible()
    assert page.get_by_role("link", name="OpenAPI").evaluate("a => a.href") == f"{home}api/openapi.json"


def test_a_token_opens_page_and_videos(browser, serve, searcher):
    home = serve(create_app(searcher, token="open-sesame"))
    page = browser.new_page()
    assert page.goto(home).status == 401
    page.get_by_label("Token").fill("open-sesame")
    page.keyboard.press("Enter")
    expect(page.locator("#about")).to_contain_text("18 segments")
    page.context.clear_cookies()
    page.get_by_label("What happens in the video?").fill(QUERY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text(
        "a token is needed: open the address that the server printed"
    )
    page.goto(f"{home}?token=open-sesame&query={QUERY}")
    expect(page.locator("section.plain h3")).to_have_count(8)
    assert "token" not in page.url
    page.locator("section.adapted li").get_by_role("button", name="Play long.mp4").click()
    expect_played(page, page.locator("section.adapted li").filter(has_text="long.mp4").locator("video"))
    page.close()


def test_the_right_hit_is_chosen_and_taken_back(browser, serve, searcher, tmp_path):
    """By the keyboard, too; and of what cannot be written the page says so."""
    file = tmp_path / "kept" / "feedback.jsonl"
    file.parent.mkdir()
    page = browser.new_page(viewport={"width": 320, "height": 800})
    page.goto(serve(create_app(searcher, feedback=FeedbackRecorder(file, log_queries=True))))
    expect(page.get_by_text(f"written to {file} on the server. Every query is written there, too")).to_be_visible()
    none = page.get_by_role("button", name="None of these")
    expect(none).to_be_hidden()
    search(page)
    result = searcher.compare(QUERY).adapted[1]
    name = f"This is the one: 2. {result.path.rsplit('/')[-1]}, by DITS"
    right = page.get_by_role("button", name=name)
    right.focus()
    page.keyboard.press("Enter")
    expect(right).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".said")).to_have_text(f"Written: {name.removeprefix('This is the one: ')}.")
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    none.click()
    expect(none).to_have_attribute("aria-pressed", "true")
    expect(right).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="Take back").press("Space")
    expect(page.locator(".said")).to_have_text("Taken back.")
    expect(none).to_be_focused()
    page.get_by_role("radio", name="DITS").check()
    right.click()
    expect(right).to_have_attribute("aria-pressed", "true")
    page.reload()
    expect(right).to_have_attribute("aria-pressed", "false")
    none.click()
    expect(none).to_have_attribute("aria-pressed", "true")
    kinds = [(entry.kind, getattr(entry, "chosen", None)) for _, entry in read_entries(file)]
    assert [kind for kind, _ in kinds] == ["query", *["judgement"] * 2, "undo", *["judgement"] * 2]
    chosen = [choice and (choice.id, choice.side, choice.rank) for _, choice in kinds]
    assert chosen == [None, (result.id, "adapted", 2), None, None, (result.id, "adapted", 2), None]
    judged = [entry for _, entry in read_entries(file) if entry.kind == "judgement"]
    assert len({entry.session for entry in judged}) == 1
    assert len(judged[0].session) > 10
    assert [list(entry.shown) for entry in judged] == [["plain", "adapted"]] * 2 + [["adapted"]] * 2
    file.rename(tmp_path / "moved")
    file.parent.rmdir()
    right.click()
    expect(page.get_by_role("alert")).to_contain_text("cannot be written (No such file or directory)")
    expect(right).to_have_attribute("aria-pressed", "false")
    page.close()


def test_a_replaced_adapter_is_told(browser, serve, client, encoder, adapter, tiny_clip, tmp_path, monkeypatch):
    """The page that is open goes on with the new adapter, whose steps and name are others."""
    monkeypatch.setattr("dits_adapter.serve._reload._SECONDS", 0.05)
    shutil.copytree(adapter, tmp_path / "adapter")
    (tmp_path / tiny_clip.name).symlink_to(tiny_clip)
    served = DITSQueryEncoder.from_pretrained(tmp_path / "adapter", backend="torch")
    searcher = Searcher(QdrantStore(client, space=served.space), served)
    searcher.load()
    page = browser.new_page()
    home = serve(create_app(searcher))
    page.goto(home)
    search(page)
    expect(page.get_by_label("Steps")).to_be_visible()
    rng = np.random.default_rng(0)
    shift = mean_shift(rng.normal(size=(9, 32)), rng.normal(size=(9, 32)))
    Artifact(shift, encoder.space).save(tmp_path / "adapter")
    wait_for_about(page, "max_steps", None)
    search(page, "a blue box")
    expect(page.get_by_role("status")).to_contain_text("The adapter is a new one.")
    expect(page.get_by_label("Steps")).to_be_hidden()
    expect(page.locator("#adapted-title")).to_have_text(shift.kind)
    page.close()


def test_an_adapter_without_steps_has_no_slider(browser, serve, client, encoder, tiny_clip, tmp_path):
    rng = np.random.default_rng(0)
    shift = mean_shift(rng.normal(size=(9, 32)), rng.normal(size=(9, 32)))
    linear = DITSQueryEncoder.from_pretrained(
        Artifact(shift, encoder.space).save(tmp_path / "shift"), encoder=tiny_clip
    )
    searcher = Searcher(QdrantStore(client, space=linear.space), linear)
    page = browser.new_page()
    page.goto(serve(create_app(searcher)))
    search(page)
    expect(page.get_by_label("Steps")).to_be_hidden()
    page.get_by_text("Filters").click()
    expect(page.get_by_label("at least")).to_be_hidden()  # it was not calibrated
    expect(page.locator("#adapted-title")).to_have_text(searcher.about().adapter)
    page.close()
