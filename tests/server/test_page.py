"""The chat page in a real Chromium, against a real server."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, Playwright, Route, expect, sync_playwright

pytestmark = pytest.mark.system

CHROMIUM = "/usr/bin/chromium"
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# A bound of patience for slow machines, nothing that is measured.
PATIENCE = 30_000

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as found:
        yield found


@pytest.fixture(scope="module")
def page_server(start_server, default_model: Path) -> Iterator[str]:
    with start_server("-m", str(default_model), "-c", "1024") as (address, _):
        yield address


@pytest.fixture
def browser(playwright: Playwright, tmp_path: Path) -> Iterator[BrowserContext]:
    context = playwright.chromium.launch_persistent_context(
        tmp_path / "user-data",
        executable_path=CHROMIUM,
        headless=True,
        args=OPTIONS,
        color_scheme="light",
        permissions=["clipboard-read", "clipboard-write"],
    )
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def page(browser: BrowserContext, page_server: str) -> Iterator[Page]:
    """The open page, whose settings make answers short and the same each time."""
    found = browser.pages[0]
    wrong: list[str] = []
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.add_init_script(
        """if (!localStorage.getItem("pyllamacpp.settings")) localStorage.setItem(
        "pyllamacpp.settings", '{"temperature": 0, "max_tokens": 40}');"""
    )
    found.goto(page_server + "/")
    expect(found.locator("#model-name")).to_have_text("smollm2-135m")
    yield found
    assert wrong == []


def send(page: Page, text: str) -> None:
    page.locator("#prompt").fill(text)
    page.keyboard.press("Enter")


def answered(page: Page, n: int = 1) -> str:
    """The text of the last answer, once there are n complete ones."""
    expect(page.locator(".assistant .stats")).to_have_count(n)
    return page.locator(".assistant .markdown").last.inner_text()


def fake_answer(page: Page, text: str, tail: str = "data: [DONE]\n\n") -> list[dict]:
    """Answers requests of the page by a text; returns their bodies."""
    bodies = []
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}

    def fulfill(route: Route) -> None:
        bodies.append(route.request.post_data_json)
        data = f"data: {json.dumps({'choices': [choice]})}\n\n{tail}"
        route.fulfill(status=200, content_type="text/event-stream", body=data)

    page.route("**/v1/chat/completions", fulfill)
    return bodies


def test_send_reload_and_go_on(page: Page) -> None:
    send(page, "Name the capital of France.")
    assert "Paris" in answered(page)
    expect(page.locator(".stats")).to_have_text(
        re.compile(r"^\d+ tokens · [\d.]+ tokens/s · first after [\d.]+ s$")
    )
    expect(page.locator("#context-text")).to_have_text(re.compile(r"^\d+ of 1,024 tokens$"))
    expect(page.get_by_role("status")).to_contain_text("Paris")
    page.reload()
    assert "Paris" in answered(page)
    send(page, "And of Italy?")
    answered(page, 2)
    expect(page.get_by_role("link", name="Name the capital of France.")).to_be_visible()


def test_an_answer_streams_and_stops(page: Page) -> None:
    settings = {"temperature": 0, "max_tokens": 900}
    page.evaluate("s => localStorage.setItem('pyllamacpp.settings', JSON.stringify(s))", settings)
    page.reload()
    send(page, "Write a very long story about a llama. Never stop.")
    answer = page.locator(".assistant .markdown")
    expect(answer).to_have_text(re.compile(r"\w+ \w+"))
    early = answer.inner_text()
    expect(page.locator(".assistant")).to_have_attribute("aria-busy", "true")
    page.wait_for_function(
        "n => document.querySelector('.assistant .markdown').innerText.length > n", arg=len(early)
    )
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator(".assistant .note")).to_have_text("Stopped.")
    expect(page.locator("#prompt")).to_be_focused()
    kept = answer.inner_text()
    page.reload()
    expect(answer).to_have_text(kept, use_inner_text=True)


def test_a_reload_keeps_what_had_come(page: Page) -> None:
    settings = {"temperature": 0, "max_tokens": 900}
    page.evaluate("s => localStorage.setItem('pyllamacpp.settings', JSON.stringify(s))", settings)
    page.reload()
    send(page, "Write a very long story about a llama. Never stop.")
    expect(page.locator(".assistant .markdown")).to_have_text(re.compile(r"\w+ \w+"))
    page.reload()
    expect(page.locator(".said")).to_have_text(re.compile("story about a llama"))
    expect(page.locator(".assistant .note")).to_have_text("Stopped.")


def test_regenerate_and_edit_make_versions(page: Page) -> None:
    send(page, "Name the capital of France.")
    first = answered(page)
    page.get_by_role("button", name="Regenerate the answer").click()
    expect(page.locator(".assistant .versions")).to_have_text("2/2")
    assert answered(page) == first  # temperature 0
    page.locator(".user").hover()
    page.get_by_role("button", name="Edit the message").click()
    page.get_by_label("Edit the message").fill("Name the capital of Italy.")
    page.keyboard.press("Enter")
    expect(page.locator(".user .versions")).to_have_text("2/2")
    assert "Rome" in answered(page)
    page.get_by_role("button", name="Version before").click()
    expect(page.locator(".said")).to_have_text("Name the capital of France.")
    page.reload()
    expect(page.locator(".said")).to_have_text("Name the capital of France.")
    assert answered(page) == first


def test_settings_and_files_are_sent(page: Page, tmp_path: Path) -> None:
    bodies = fake_answer(page, "Yes.")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System prompt").fill("Answer in one word.")
    page.get_by_label("Temperature").fill("0.25")
    page.get_by_label("Top p").fill("7")  # more than 1: refused, the last value counts
    page.get_by_label("Seed").fill("11")
    page.get_by_role("button", name="Close the settings").click()
    (tmp_path / "notes.md").write_text("A fence:\n```\nx\n```\n", "utf-8")
    (tmp_path / "data.bin").write_bytes(b"\xff\x00")
    page.set_input_files("#file-input", [tmp_path / "notes.md", tmp_path / "data.bin"])
    expect(page.locator("#files .refused")).to_have_text("data.bin is not a text file in UTF-8.")
    send(page, "What is in it?")
    expect(page.locator(".assistant .markdown")).to_have_text("Yes.")
    (body,) = bodies
    assert (body["temperature"], body["top_p"], body["seed"]) == (0.25, 0.95, 11)
    system, asked = body["messages"]
    assert system == {"role": "system", "content": "Answer in one word."}
    fenced = "File notes.md:\n````\nA fence:\n```\nx\n```\n````"
    assert asked == {"role": "user", "content": f"What is in it?\n\n{fenced}"}
    expect(page.locator("details.file summary")).to_have_text("notes.md")
    page.reload()
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_label("System prompt")).to_have_value("Answer in one word.")


MARKDOWN = """# Plan

Use **bold**, *em*, ***both***, ~~old~~, `a*b` and [docs](https://example.org/a_b_c).

1. One
   - inner
2. Two

```python
x = "<b>"
```

| type | bits |
|---|--:|
| q4_0 | 4.5 |

> quoted
"""


def test_markdown_and_copying(page: Page) -> None:
    fake_answer(page, MARKDOWN)
    send(page, "Show it.")
    shown = page.locator(".assistant .markdown")
    expect(shown.get_by_role("heading", name="Plan")).to_be_visible()
    for selector, text in (
        ("strong >> nth=0", "bold"),
        ("em >> nth=0", "em"),
        ("em strong", "both"),
        ("del", "old"),
        ("p code", "a*b"),
        ("ol > li > ul > li", "inner"),
        ("pre code", 'x = "<b>"'),
        ("td.side-end", "4.5"),
        ("blockquote p", "quoted"),
    ):
        expect(shown.locator(selector)).to_have_text(text)
    expect(shown.get_by_role("link")).to_have_attribute("href", "https://example.org/a_b_c")
    page.get_by_role("button", name="Copy the code").click()
    expect(page.get_by_role("status")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == 'x = "<b>"'


ATTACK = """<script>document.title = "taken"</script>
<img src=x onerror="document.title='taken'"> ![i](https://example.org/track.png)
[a](javascript:document.title='taken') [b](java&#115;cript:x) [c](data:text/html,x)

```"><img src=x onerror=x>
</code><script>x</script>
```
"""


def test_what_is_thought_is_folded(page: Page) -> None:
    deltas = [{"reasoning_content": "Let me"}, {"reasoning_content": " see."}]
    deltas += [{"content": "It is "}, {"content": "four."}]
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    events = [f"data: {json.dumps({'choices': [choice]})}\n\n" for choice in choices]
    bodies = fake_answer(page, "", "".join(events) + "data: [DONE]\n\n")
    send(page, "Two and two?")
    assert answered(page) == "It is four."
    thought = page.locator("details.thought")
    expect(thought.locator(".markdown")).to_be_hidden()
    thought.locator("summary").click()
    expect(thought.locator(".markdown")).to_have_text("Let me see.")
    send(page, "Sure?")
    answered(page, 2)
    # As models write it, and their templates take it apart.
    kept = "<think>\nLet me see.\n</think>\n\nIt is four."
    assert bodies[1]["messages"][1]["content"] == kept


def test_a_text_never_becomes_markup(page: Page) -> None:
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    fake_answer(page, ATTACK)
    send(page, ATTACK.splitlines()[1])
    expect(page.locator(".assistant .markdown pre")).to_contain_text("</code><script>")
    expect(page.locator("#list a")).to_contain_text("<img src=x")  # the title is the message
    main = page.locator("#thread, #list, .top")
    assert main.locator("img, script, iframe, [onerror]").count() == 0
    links = [link.get_attribute("href") for link in page.locator(".markdown a").all()]
    assert links == ["https://example.org/track.png"]
    assert page.title() != "taken"
    assert [url for url in requested if "example.org" in url] == []
    # The policy holds where the page itself would not.
    blocked = "() => { try { document.body.innerHTML = 'x'; return false } catch { return true } }"
    assert page.evaluate(blocked)


def test_hostile_lengths_are_drawn(page: Page) -> None:
    for text in (
        "*a _b " * 5000,
        ">" * 20_000,
        "[" * 20_000,
        "`" * 9999 + " ``" * 5000,
        "- " * 9999,
    ):
        page.unroute_all()
        fake_answer(page, text + "\n\nthe end")
        send(page, "Go.")
        expect(page.locator(".assistant .markdown").last).to_contain_text("the end")
        expect(page.get_by_role("button", name="Send")).to_be_visible()


def test_rename_export_and_delete(page: Page) -> None:
    fake_answer(page, "Hello.")
    send(page, "Hi there")
    expect(page.locator(".assistant .markdown")).to_have_text("Hello.")
    more = page.get_by_role("button", name=re.compile("^More for"))
    page.locator("#list li").hover()
    more.click()
    page.keyboard.press("Enter")  # the first of the menu
    page.get_by_label("Title").fill("A greeting")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="A greeting")).to_be_visible()
    for entry, name in (("Markdown", "A greeting.md"), ("JSON", "A greeting.json")):
        page.locator("#list li").hover()
        more.click()
        with page.expect_download() as download:
            page.get_by_role("menuitem", name=f"Export as {entry}").click()
        assert download.value.suggested_filename == name
        text = Path(download.value.path()).read_text("utf-8")
        if entry == "JSON":
            assert json.loads(text)["title"] == "A greeting"
        else:
            assert text == "# A greeting\n\n## You\n\nHi there\n\n## Assistant\n\nHello.\n"
    page.locator("#list li").hover()
    more.click()
    page.get_by_role("menuitem", name="Delete").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator("#list li")).to_have_count(0)
    page.reload()
    expect(page.locator("#list .note")).to_have_text("No conversations yet.")


def test_an_error_is_shown_and_tried_again(page: Page) -> None:
    send(page, "x " * 2000)
    error = page.locator(".assistant .error")
    expect(error).to_contain_text(re.compile("token"))
    page.locator("#prompt").focus()
    page.keyboard.press("ArrowUp")
    page.get_by_label("Edit the message").fill("Name the capital of France.")
    page.keyboard.press("Enter")
    assert "Paris" in answered(page)


def test_a_broken_stream_keeps_its_text(page: Page) -> None:
    fake_answer(page, "Half of", tail="")
    send(page, "Go.")
    expect(page.locator(".error")).to_contain_text("The connection broke")
    expect(page.locator(".assistant .markdown")).to_have_text("Half of")
    page.unroute_all()
    fake_answer(page, "All of it.")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".assistant .markdown")).to_have_text("All of it.")


def test_the_server_goes_and_comes_back(browser, start_server, default_model: Path) -> None:
    page = browser.pages[0]
    with start_server("-m", str(default_model)) as (address, _):
        page.goto(address + "/")
        expect(page.locator("#model-name")).to_have_text("smollm2-135m")
    send(page, "Name the capital of France.")
    expect(page.locator(".error")).to_contain_text("The server does not answer.")
    expect(page.locator("#gone")).to_be_visible()
    port = address.rpartition(":")[2]
    with start_server("-m", str(default_model), "--port", port):
        expect(page.locator("#gone")).to_be_hidden()
        page.get_by_role("button", name="Try again").click()
        answered(page)
        expect(page.locator(".error")).to_have_count(0)
        expect(page.locator(".assistant")).to_have_count(1)


def test_the_key_is_asked_for_and_kept(browser, start_server, default_model: Path) -> None:
    page = browser.pages[0]
    with start_server("-m", str(default_model), "--api-key", "right") as (address, _):
        page.goto(address + "/")
        for key in ("wrong", "right"):
            page.get_by_role("textbox", name="API key").fill(key)
            page.get_by_role("button", name="Use it").click()
        expect(page.locator("#model-name")).to_have_text("smollm2-135m")
        page.reload()
        expect(page.locator("#model-name")).to_have_text("smollm2-135m")
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.get_by_role("button", name="Settings").click()
        page.get_by_role("button", name="Forget the API key").click()
        expect(page.get_by_role("textbox", name="API key")).to_be_visible()


CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const light = (color) => {
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const part = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((byte) => {
      const c = byte / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
  };
  const ground = (node) => {
    const color = getComputedStyle(node).backgroundColor;
    return color !== "rgba(0, 0, 0, 0)" || !node.parentElement ? color : ground(node.parentElement);
  };
  const wrong = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim()) continue;
    if (!node.checkVisibility() || node.closest("dialog")) continue;
    const pair = [light(getComputedStyle(node).color), light(ground(node))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5) wrong.push([walker.currentNode.data.trim().slice(0, 40), ratio]);
  }
  return wrong;
}"""


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_themes_and_widths(page: Page, theme: str, width: int) -> None:
    fake_answer(page, MARKDOWN + "\n```\n" + "long " * 100 + "\n```\n")
    page.get_by_text(theme, exact=True).click()
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", theme.lower())
    page.set_viewport_size({"width": width, "height": 740})
    send(page, "Show it. " + "w" * 200)
    expect(page.locator(".assistant blockquote")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("document.querySelector('#scroller').scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"Light": "rgb(255, 255, 255)", "Dark": "rgb(20, 23, 26)"}[theme]
    assert page.evaluate(CONTRAST) == []
    if width < 800:
        expect(page.locator("#sidebar")).not_to_be_in_viewport()
        page.get_by_role("button", name="Conversations").click()
        expect(page.get_by_role("button", name="Close the list")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="Conversations")).to_be_focused()
        expect(page.locator("#sidebar")).not_to_be_in_viewport()


def test_everything_has_a_name_and_the_keyboard_reaches_it(page: Page) -> None:
    fake_answer(page, MARKDOWN)
    send(page, "Show it.")
    expect(page.locator(".assistant blockquote")).to_be_visible()
    unnamed = """() => [...document.querySelectorAll("button, input, select, textarea, a[href]")]
      .filter((n) => n.checkVisibility())
      .filter((n) => !n.innerText.trim() && !n.ariaLabel && !n.labels?.length)
      .map((n) => n.outerHTML)"""
    assert page.evaluate(unnamed) == []
    page.evaluate("document.activeElement.blur()")
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.ariaLabel"))
    assert {"new", "open-settings", "Copy the code", "Regenerate the answer", "prompt"} <= seen
    page.keyboard.press("Alt+n")
    expect(page.locator(".empty")).to_be_visible()
    expect(page.locator("#prompt")).to_be_focused()
