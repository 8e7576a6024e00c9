"""The pages in a real Chromium, made of runs in which every text is hostile: what a browser asks for, runs, draws and
shows; on a screen, in the dark, on a phone and on paper.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import browser
import hostile_run as hostile
import pytest

from tokenswarm.cli import main

pytestmark = pytest.mark.slow
DESKTOP, PHONE, PAPER = (1280, 900), (390, 844), (718, 1047)
"""Width and height in CSS pixels; paper is A4 with a centimetre left free all round."""
PAGES = ("report.html", "../chinese/report.html", "compare.html", "sweep.html")


@dataclass
class Opened:
    """A page in the browser, what it asked the network for, and what it wrote on its console."""

    page: Any
    address: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def ask(self, script: str, *arguments: Any) -> Any:
        return self.page.evaluate(script, *arguments)

    def until(self, condition: str) -> None:
        """Wait for charts to be drawn anew; the test that follows tells what is wrong if that was in vain."""
        with suppress(Exception):
            self.page.wait_for_function(condition, timeout=5_000)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.browser() as started:
        yield started


@pytest.fixture(scope="module")
def runs(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The second of two hostile runs, which has the pages; beside it a copy, whose report is in Chinese."""
    folder = tmp_path_factory.mktemp("hostile")
    old, new = hostile.write(folder / "old"), hostile.write(folder / "new", ttft=0.15)
    chinese = shutil.copytree(new, folder / "chinese")
    assert main(["report", str(new)]) == 0
    assert main(["report", "--lang", "zh", str(chinese)]) == 0
    assert main(["compare", str(old), str(new)]) == 0
    assert main(["sweep", str(new), str(old), "--trust", "all"]) == 0
    return new


@pytest.fixture(scope="module", params=PAGES)
def opened(request: pytest.FixtureRequest, chromium: Any, runs: Path) -> Iterator[Opened]:
    """The page, drawn in a light window of a desktop's size."""
    page = chromium.new_page(viewport={"width": DESKTOP[0], "height": DESKTOP[1]}, color_scheme="light")
    found = Opened(page, (runs / request.param).resolve().as_uri())
    page.on("request", lambda request: found.requests.append(request.url))
    page.on("console", lambda said: found.complaints.append(f"{said.type}: {said.text}"))
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    page.goto(found.address)
    yield found
    page.close()


@pytest.fixture(autouse=True)
def on_a_desktop(opened: Opened) -> None:
    opened.page.set_viewport_size({"width": DESKTOP[0], "height": DESKTOP[1]})
    opened.page.emulate_media(color_scheme="light", media="screen")


def test_the_browser_asks_for_nothing_but_the_file_and_has_no_complaint(opened: Opened) -> None:
    assert opened.requests == [opened.address]
    assert opened.complaints == []


def test_the_page_may_not_ask_for_anything_either(opened: Opened) -> None:
    refused = opened.ask("() => fetch('https://example.invalid/').then(() => 'asked', error => String(error))")
    assert "TypeError" in refused
    assert any("Content Security Policy" in said for said in opened.complaints)
    assert opened.requests == [opened.address]
    opened.complaints.clear()


def test_nothing_hostile_ran_and_none_of_it_became_an_element(opened: Opened) -> None:
    opened.page.mouse.move(400, 500)
    assert opened.ask(f"() => window.{hostile.FLAG}") is None
    foreign = "img, iframe, object, embed, link, base, form, audio, video, [onerror], [onload], [onclick]"
    assert opened.ask("(found) => document.querySelectorAll(found).length", foreign) == 0
    links = "() => [...document.querySelectorAll('a')].map(a => a.getAttribute('href') || a.getAttribute('xlink:href'))"
    assert [link for link in opened.ask(links) if not (link or "").startswith("#")] == []


DRAWN = """() => [...document.querySelectorAll("figure[data-chart]")].map(figure => {
  const plot = figure.querySelector(".js-plotly-plot");
  const marks = figure.querySelectorAll(
    ".scatterlayer .trace path, .scatterlayer .trace text, .barlayer .point path, .heatmaplayer image, .boxlayer path");
  const box = figure.querySelector(".main-svg")?.getBoundingClientRect();
  return {name: figure.dataset.chart, traces: plot ? plot.data.length : 0, marks: marks.length,
          width: box ? box.width : 0, height: box ? box.height : 0};
})"""


def test_every_chart_is_drawn(opened: Opened) -> None:
    charts = opened.ask(DRAWN)
    assert charts
    assert len({chart["name"] for chart in charts}) == len(charts)
    for chart in charts:
        assert chart["traces"] and chart["marks"], chart
        assert chart["width"] > 200 and chart["height"] > 100, chart


def test_markup_in_a_name_on_a_chart_is_text(opened: Opened) -> None:
    """plotly takes <b>, <br> and <a href> in its texts for markup."""
    marked = "() => [...document.querySelectorAll('svg a, svg tspan')].map(part => part.textContent)"
    assert not {"bold", "y"} & set(opened.ask(marked))
    assert opened.ask("() => document.querySelectorAll('svg a').length") == 0
    written = " ".join(opened.ask("() => [...document.querySelectorAll('svg text')].map(text => text.textContent)"))
    assert hostile.SHORT[0] in written or opened.address.endswith("sweep.html"), "names are there as they are"


def test_hostile_text_is_there_to_be_read(opened: Opened) -> None:
    shown = opened.ask("() => document.querySelector('main').textContent")
    for text in (hostile.SCRIPT, hostile.LINK, hostile.EMOJI):
        assert text in shown
    assert not set(shown) & {"\x1b", "\x07", "\x00", "\u2028", "\u202e", "\ud800"}, (
        "no controls, none that turn text around"
    )
    assert len(shown) < 400_000, "a megabyte of error is cut"


def test_every_link_has_its_target_and_every_id_is_there_once(opened: Opened) -> None:
    ids = opened.ask("() => [...document.querySelectorAll('[id]')].map(element => element.id)")
    assert sorted(ids) == sorted(set(ids))
    targets = opened.ask("() => [...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.getAttribute('href'))")
    assert {target[1:] for target in targets} <= {*ids, ""}


FAINT = """() => {
  const parts = colour => (colour.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const over = (front, back) => {
    const alpha = front.length > 3 ? front[3] : 1;
    return [0, 1, 2].map(i => front[i] * alpha + back[i] * (1 - alpha));
  };
  const light = colour => {
    const [r, g, b] = colour.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    const chain = [];
    for (let at = element; at; at = at.parentElement) chain.unshift(parts(getComputedStyle(at).backgroundColor));
    return chain.reduce((back, front) => over(front, back), [255, 255, 255]);
  };
  const found = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || !element.checkVisibility() || element.closest("script, style")) continue;
    const style = getComputedStyle(element), back = ground(element);
    const inChart = element.closest("svg");
    const ink = over(parts(inChart ? style.fill : style.color), back);
    const [low, high] = [light(ink), light(back)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    const what = `${element.tagName}.${element.getAttribute("class") || ""} ${style.color}`;
    if (ratio < 4.5) found[what] = [Math.round(ratio * 100) / 100, node.textContent.trim().slice(0, 40)];
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_its_ground(opened: Opened, scheme: str) -> None:
    opened.page.emulate_media(color_scheme=scheme)
    opened.until(f"() => Object.keys(({FAINT})()).length === 0")
    assert opened.ask(FAINT) == {}
    grounds = opened.ask("() => getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g)")
    assert (int(grounds[0]) > 128) == (scheme == "light")


OVERFLOWING = """(width) => [...document.querySelectorAll("body *")].filter(element => {
  const scrolls = element.parentElement.closest(".scroll");
  if (scrolls && getComputedStyle(scrolls).overflowX !== "visible") return false;
  const box = element.getBoundingClientRect();
  return box.width > 0 && element.checkVisibility() && box.right > width + 1 && !element.closest("defs, clipPath");
}).slice(0, 5).map(element => `${element.tagName}.${element.getAttribute("class")} ${element.textContent.slice(0, 40)}`)
"""
"""What reaches over the right edge; on a screen tables may, each in a box of its own that scrolls."""


def test_a_phone_has_nothing_to_scroll_sideways(opened: Opened) -> None:
    opened.page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    opened.until(f"() => ({OVERFLOWING})({PHONE[0]}).length === 0")
    assert opened.ask("() => document.documentElement.scrollWidth") <= PHONE[0]
    assert opened.ask(OVERFLOWING, PHONE[0]) == []


def test_on_paper_nothing_is_cut(opened: Opened) -> None:
    assert opened.page.pdf(format="A4").startswith(b"%PDF")
    opened.page.set_viewport_size({"width": PAPER[0], "height": PAPER[1]})
    opened.page.emulate_media(media="print")
    opened.ask("() => window.dispatchEvent(new Event('beforeprint'))")
    opened.until(f"() => ({OVERFLOWING})({PAPER[0]}).length === 0")
    cut = opened.ask(OVERFLOWING, PAPER[0])
    opened.ask("() => window.dispatchEvent(new Event('afterprint'))")
    assert cut == []
