"""The pages of blind comparisons and of the collection as people meet them, in a real browser."""

from __future__ import annotations

from datetime import datetime, timezone

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from dits_adapter.serve._app import create_app
from dits_adapter.serve._feedback import FeedbackRecorder
from dits_adapter.sources._feedback_file import LoggedQuery, append
from tests.serve.conftest import lines
from tests.serve.test_page import browser, serve  # noqa: F401  (fixtures)


def judgements(file):
    return [(line["kind"], line.get("query"), line.get("better")) for line in lines(file)]


def test_queries_are_judged_by_the_keyboard_and_go_on_after_a_reload(browser, serve, searcher, tmp_path):  # noqa: F811
    """In 320 pixels, with a query that is refused, one that a list of JavaScript's own words has, and two tabs."""
    file = tmp_path / "feedback.jsonl"
    home = serve(create_app(searcher, feedback=FeedbackRecorder(file)))
    context = browser.new_context(viewport={"width": 320, "height": 800}, reduced_motion="reduce")
    page = context.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{home}compare")
    expect(page.get_by_text(f"Each judgement is written to {file} on the server")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    axe = Axe()
    assert axe.run(page).response["violations"] == []
    queries = page.get_by_label("Queries, one a line")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("There is no query")
    page.get_by_label("or from a file").set_input_files(
        {
            "name": "log.jsonl",
            "mimeType": "text/plain",
            "buffer": b'{"format": "dits_adapter feedback"}\n{"kind": "query", "query": "a red ball"}\n',
        }
    )
    expect(queries).to_have_value("a red ball")
    queries.fill("a red ball\nconstructor\n\nbeach.mp4\na red ball\na blue box\na dog runs")
    page.get_by_role("button", name="Start").click()
    status, heading = page.locator("#status"), page.locator("#query")
    expect(status).to_have_text("Query 1 of 5.")
    expect(page.locator("#left li")).to_have_count(5)
    expect(page.locator("#right li")).to_have_count(5)
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    assert axe.run(page).response["violations"] == []
    page.keyboard.press("2")
    expect(heading).to_have_text("“constructor”")
    page.reload()
    expect(status).to_have_text("Query 2 of 5.")
    page.keyboard.press("4")
    expect(page.get_by_role("alert")).to_contain_text("is the name of a video file")
    page.keyboard.press("0")
    expect(heading).to_have_text("“a blue box”")
    page.keyboard.press("Backspace")
    expect(heading).to_have_text("“constructor”")
    page.get_by_role("button", name="Both are good").press("Enter")
    expect(heading).to_have_text("“a blue box”")
    other = context.new_page()
    other.goto(f"{home}compare")
    expect(other.locator("#query")).to_have_text("“a blue box”")
    other.keyboard.press("1")
    expect(other.locator("#query")).to_have_text("“a dog runs”")
    page.keyboard.press("3")  # the same query in the first tab: the last word counts
    expect(heading).to_have_text("“a dog runs”")
    page.keyboard.press("1")
    expect(status).to_contain_text("All 5 queries are done.")
    assert judgements(file) == [
        ("preference", "a red ball", "right"),
        ("preference", "constructor", "neither"),
        ("undo", None, None),
        ("preference", "constructor", "both"),
        ("preference", "a blue box", "left"),
        ("preference", "a blue box", "both"),
        ("preference", "a dog runs", "left"),
    ]
    expect(page.locator("#verdict")).to_be_hidden()  # blind until it is asked for
    page.get_by_text("Show the tally").click()
    expect(page.locator("#verdict")).to_contain_text("Not decided: the adapter was preferred for")
    expect(page.locator("#verdict")).to_contain_text("4 judgements by 1 browser: left 1, right 1")
    expect(page.get_by_role("row", name="all")).to_contain_text("4")
    page.emulate_media(color_scheme="dark")
    assert axe.run(page).response["violations"] == []
    page.get_by_role("button", name="Another list").click()
    expect(queries).to_be_focused()
    assert complaints == []
    page.goto(f"{serve(create_app(searcher))}compare")
    expect(page.get_by_role("alert")).to_contain_text("--feedback feedback.jsonl")
    context.close()


def test_the_collection_is_shown_with_its_files_and_hubs(browser, serve, searcher, tmp_path):  # noqa: F811
    """In 320 pixels; what is drawn is said in words, too."""
    feedback = FeedbackRecorder(tmp_path / "feedback.jsonl")
    for n in range(20):
        append(feedback.path, LoggedQuery(time=datetime.now(timezone.utc), query=f"a scene of {n} balls"))
    page = browser.new_page(viewport={"width": 320, "height": 800})
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    home = serve(create_app(searcher, feedback=feedback))
    page.goto(home)
    page.get_by_role("link", name="Collection").click()
    expect(page.locator("#facts")).to_contain_text("segments of 2 s overlapping by 0 s")
    expect(page.locator("#files tr")).to_have_count(8)
    expect(page.locator("#files tr").first).to_contain_text("clip-0.mp4")
    expect(page.locator("#files tr").first).to_contain_text("4.0 s")
    page.get_by_label("Parts of the name").fill("LONG")
    expect(page.locator("#files tr")).to_have_count(1)
    expect(page.locator("form[data-list=files] .shown")).to_have_text("1 to 1 of 1")
    expect(page.locator("form[data-list=failures] .shown")).to_have_text("None.")

    def entitle(route):
        response = route.fetch()
        found = response.json()
        found["files"][0]["name"] = "\u202eevil"  # which turns the line around
        route.fulfill(response=response, json=found)

    unread = {"total": None, "files": []}  # the server was started again, and has not read the collection yet
    answers = [lambda route: route.abort(), lambda route: route.fulfill(json=unread), entitle]
    page.route("**/api/collection/files?*", lambda route: answers.pop(0)(route), times=3)
    page.get_by_label("Parts of the name").fill("old")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer.")
    page.get_by_label("Parts of the name").fill("clip")
    expect(page.locator("#files tr")).to_have_count(6)
    expect(page.locator("#files a").first).to_have_text("\ufffdevil")
    expect(page.get_by_role("alert")).to_be_empty()
    expect(page.locator("#sample")).to_have_text(
        "18 segments and 20 queries that people typed here, each drawn by a seed."
    )
    plane, curve = page.locator(".figures figure > svg").all()
    assert (plane.locator("circle.segment").count(), plane.locator("rect.plain").count()) == (18, 20)
    assert curve.locator("polyline").count() == 2
    assert page.get_by_role("img", name="The mean query is").count() == 1
    assert page.get_by_role("img", name="How many of the 20 queries have a segment").count() == 1
    expect(page.get_by_role("row", name="plain CLIP")).to_contain_text("of 20 queries")
    expect(page.locator("#hubs img").first).to_have_js_property("complete", True)
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    assert Axe().run(page).response["violations"] == []
    assert complaints == []
    page.close()
