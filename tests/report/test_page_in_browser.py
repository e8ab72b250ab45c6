"""The page in Chromium: from disk, alone, narrow, wide, light, dark, by keyboard, on paper."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
Written = dict[str, Path]

CONTRAST = """() => {
  const luminance = (colour) => {
    const parts = colour.match(/[\\d.]+/g).map(Number).slice(0, 3).map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/rgba\\(.*, 0\\)/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *:not(script, style, title)")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own) continue;
    const drawn = element instanceof SVGElement;
    const front = getComputedStyle(element)[drawn ? "fill" : "color"];
    const [dim, bright] = [luminance(front), luminance(ground(element))].sort((a, b) => a - b);
    const ratio = (bright + 0.05) / (dim + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(1)} ${element.outerHTML.slice(0, 80)}`);
  }
  return poor;
}"""

UNNAMED = """() => [...document.querySelectorAll(
  "a, summary, select, input, svg[role=img], section, article, nav, [role=region]"
)].filter((element) => {
  const label = element.getAttribute("aria-label");
  const by = element.getAttribute("aria-labelledby");
  const named = label || (by && document.getElementById(by)?.textContent.trim());
  return !(named || element.closest("label")?.textContent.trim()
    || (element.matches("a, summary") && element.textContent.trim()));
}).map((element) => element.outerHTML.slice(0, 80))"""


@contextmanager
def shown(browser: Any, path: Path, *, anchor: str = "", **options: Any) -> Iterator[Any]:
    """A page that asks for no other file and has nothing to complain about."""
    complaints: list[str] = []
    asked: list[str] = []
    with browser.new_context(**options) as context:
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri() + anchor)
        yield page
    assert complaints == []
    strange = [url for url in asked if not url.startswith("data:")]
    assert strange in ([path.as_uri() + anchor], [path.as_uri()])


@pytest.mark.parametrize("name", ["healthy", "failing", "several"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(browser: Any, written: Written, name: str, scheme: str) -> None:
    with shown(browser, written[name], color_scheme=scheme) as page:
        for width in (360, 1600):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.eval_on_selector_all("details", "all => all.forEach((one) => { one.open = true })")
        assert page.evaluate("document.documentElement.scrollWidth") <= 1600
        page.set_viewport_size({"width": 360, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.evaluate(CONTRAST) == []
        dark = (
            page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        )
        assert dark == (scheme == "dark")


@pytest.mark.parametrize("name", ["healthy", "failing", "several"])
def test_everything_has_a_name_and_headings_follow_each_other(
    browser: Any, written: Written, name: str
) -> None:
    with shown(browser, written[name]) as page:
        assert page.evaluate(UNNAMED) == []
        levels = page.eval_on_selector_all(
            "h1, h2, h3, h4", "all => all.map((one) => Number(one.tagName[1]))"
        )
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        assert page.locator("main").count() == 1
        assert page.locator("html").get_attribute("lang") == "en"


def test_the_probes_can_fail(browser: Any) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.set_content("<p style='color: #bbb; background: #fff'>pale</p><nav><input></nav>")
        assert len(page.evaluate(CONTRAST)) == 1
        assert len(page.evaluate(UNNAMED)) == 2


def test_the_filter(browser: Any, written: Written) -> None:
    with shown(browser, written["failing"]) as page:
        output = page.locator("output")
        assert output.inner_text() == "3 of 3 shown"
        page.get_by_label("Status").select_option("fail")
        assert output.inner_text() == "1 of 3 shown"
        assert page.locator("details.check:visible").count() == 1
        page.get_by_label("Status").select_option("")
        page.get_by_label("Text").fill("Learns one-BATCH")
        assert page.locator("details.check:visible").get_attribute("id") == "L001"
        page.get_by_label("Text").fill("")
        page.get_by_label("Family").select_option("guard")
        assert output.inner_text() == "0 of 3 shown"


def test_links_open_what_they_name(browser: Any, written: Written) -> None:
    with shown(browser, written["several"], anchor="#p2-L001") as page:
        assert page.locator("#p2-L001").evaluate("one => one.open")
        assert not page.locator("#L001").evaluate("one => one.open")
        second = page.locator("#p2-part")
        second.get_by_label("Text").fill("nothing is called this")
        assert not page.locator("#p2-L009").is_visible()
        second.locator(".verdict a").first.click()
        page.locator("#p2-L009").wait_for(state="visible")
        assert page.locator("#p2-L009").evaluate("one => one.open")
        focused = page.evaluate("document.activeElement.closest('details').id")
        assert focused == "p2-L009"


def test_by_keyboard(browser: Any, written: Written) -> None:
    with shown(browser, written["failing"]) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        page.keyboard.press("Tab")
        assert page.evaluate(outline) == "solid"
        page.locator("#L001 > summary").focus()
        page.keyboard.press("Enter")
        assert page.locator("#L001").evaluate("one => one.open")


def test_on_paper(browser: Any, written: Written) -> None:
    with shown(browser, written["healthy"], color_scheme="dark") as page:
        pdf = page.pdf(format="A4")
        page.emulate_media(media="print")
        assert not page.locator("form.filter").is_visible()
        ink = page.evaluate("getComputedStyle(document.body).color")
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 20_000
    assert ink == "rgb(0, 0, 0)"


def test_markup_of_the_user_does_nothing(browser: Any, written: Written) -> None:
    with shown(browser, written["hostile"]) as page:
        assert page.title().startswith("<script>")
        assert page.locator("main script, main img, main b").count() == 0
        assert "document.title='taken'" in page.locator("#L001 .cause-text").inner_text()


def test_a_script_that_gets_in_does_not_run(browser: Any, written: Written, tmp_path: Path) -> None:
    changed = tmp_path / "changed.html"
    text = written["failing"].read_text(encoding="utf-8")
    evil = (
        "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
    )
    changed.write_text(text.replace("</main>", f"{evil}</main>"), encoding="utf-8")
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(changed.as_uri())
        assert "taken" not in page.title()


def test_without_scripts_everything_is_there(browser: Any, written: Written) -> None:
    with shown(browser, written["failing"], java_script_enabled=False) as page:
        assert not page.locator("form.filter").is_visible()
        assert page.locator("details.check").count() == 3
