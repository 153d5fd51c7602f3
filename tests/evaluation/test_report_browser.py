"""The report page in a real browser: the system's Chromium, driven by Playwright."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretint.evaluation import ReportRun, transfer_row, write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = (
    "there is no Chromium on the PATH; install the system package chromium"
    if CHROMIUM is None
    else "Playwright is missing; pip install playwright"
    if importlib.util.find_spec("playwright") is None
    else ""
)
# where a browser is promised, its absence is a failure and no skip
PROMISED = os.environ.get("PRETINT_TEST_BROWSER") == "1"
pytestmark = pytest.mark.skipif(bool(MISSING) and not PROMISED, reason=MISSING or "a browser is there")

NASTY = "<script>document.title='broken'</script>"
CLASSES = ["cat", "dog", NASTY]
SLOW = 120_000  # milliseconds; a busy machine is no failure


def pictures(seed: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 16, 16), dtype=np.uint8)


def make_run(name: str, top1: float, seed: int) -> ReportRun:
    rows = [
        transfer_row(
            data="cifar10", protocol=protocol, init=init, top1=top1 - loss, labels=labels, seed=each, ece=0.05,
            sees="rgb" if init == "supervised-rgb" else "grey",
            per_layer={"stage0": 0.3, "stage1": top1 - loss} if protocol == "linear" else {},
            confusion=[[5000, 500, 0], [900, 4000, 600], [0, 2000, 3500]], class_names=CLASSES,
        )
        for each in (0, 1)
        for init, loss in (("pretrained", 0.0), ("random", 0.1), ("supervised-grey", -0.05), ("supervised-rgb", -0.1))
        for protocol, labels in (("linear", 1.0), ("finetune", 0.01), ("finetune", 1.0))
    ]  # fmt: skip
    colour = {
        "data": "cifar10", "split": "test", "palette": "rgb-2", "cross_entropy_nats": 2.0 - top1, "delta_e2000": 10.0,
        "ab_rmse": 5.0, "prior_cross_entropy_nats": 2.5, "grey_delta_e2000": 12.0, "confusion": [[9, 1], [4, 6]],
        "delta_m3_per_class": [3.0, 5.0, None], "grey_delta_m3_per_class": [9.0, 8.0, None], "class_names": CLASSES,
    }  # fmt: skip
    health = {
        "data": "cifar10", "init": "pretrained", "sees": "grey", "seed": 0, "layer": "stage0", "effective_rank": 12.3,
        "dead_channels": 0.05, "uniformity": -2.0, "alignment": 0.3,
    }  # fmt: skip
    shown = {"grey": pictures(0), "painted": pictures(seed), "true": pictures(1)}
    generator = np.random.default_rng(seed)
    return ReportRun(
        name,
        {"task": "palette", "data": "cifar10", "command": ["pretint", "pretrain"], "versions": {"torch": "2.10"}},
        {"transfer": rows, "colour": [colour], "features": [health]},
        [{"epoch": epoch, "train_loss": 2 / epoch, "validation_loss": 3 / epoch} for epoch in (1, 2, 3)],
        {**shown, "confidence": pictures(seed)[:, 0], "history": {1: pictures(3), 2: pictures(4)}},
        {**shown, "delta_e2000": generator.gamma(5, 2, 50)},
        np.array([[250, 250, 250], [5, 5, 5]], np.uint8),
        {
            "points": generator.normal(size=(40, 2)), "labels": np.arange(40) % 3, "class_names": CLASSES,
            "thumbnails": pictures(9, 40), "layer": "stage1",
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    assert not MISSING, MISSING
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # no sandbox: inside a container it can't be made, and the page is our own; software drawing: there is no screen
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"], timeout=SLOW
        )
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = [make_run("runs/plain", 0.5, 5), make_run(f"runs/{NASTY}", 0.7, 6), make_run("runs/" + "long-" * 20, 0.6, 7)]
    return write_report(runs, tmp_path_factory.mktemp("report") / "report.html", title=f"Report {NASTY}")


class Opened:
    """The page in a tab of its own, with whatever the console complained about."""

    def __init__(self, browser: Any, path: Path, **options: Any):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(SLOW)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type != "log" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Opened]:
    tab = Opened(browser, report, viewport={"width": 1280, "height": 900})
    yield tab
    tab.context.close()


def test_the_page_opens_without_complaint_and_asks_for_nothing(opened: Opened, report: Path):
    assert opened.errors == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [report.as_uri()]
    assert opened.page.locator("#answer .verdict").inner_text().startswith("Yes.")
    first = opened.page.locator("main > section").first
    assert first.get_attribute("id") == "answer"
    assert first.bounding_box()["y"] < 400


def test_names_with_a_script_stay_text(opened: Opened):
    assert opened.page.title() == f"Report {NASTY}"
    assert opened.page.evaluate("document.scripts.length") == 1
    assert opened.page.locator("h3", has_text=NASTY).count() > 0
    opened.page.locator(".sheet button").first.click()
    assert NASTY in opened.page.locator("#large").inner_text()
    assert opened.page.evaluate("document.scripts.length") == 1


def test_a_table_sorts_by_keyboard_and_comes_back(opened: Opened):
    table = opened.page.locator("#transfer table").first
    column = "rows => rows.map(row => row.cells[2].textContent.trim())"
    before = table.locator("tbody tr").evaluate_all(column)
    head = table.locator("thead th").nth(2)
    head.locator("button").focus()
    orders = []
    for _ in range(3):
        opened.page.keyboard.press("Enter")
        orders.append((head.get_attribute("aria-sort"), table.locator("tbody tr").evaluate_all(column)))
    numbers = [float(text.split()[0]) for text in before]
    assert numbers not in (sorted(numbers), sorted(numbers, reverse=True))
    assert [sort for sort, _ in orders] == ["descending", "ascending", None]
    assert [float(text.split()[0]) for text in orders[0][1]] == sorted(numbers, reverse=True)
    assert [float(text.split()[0]) for text in orders[1][1]] == sorted(numbers)
    assert orders[2][1] == before


def test_the_gallery_opens_steps_and_closes_by_keyboard(opened: Opened):
    page, dialog = opened.page, opened.page.locator("#large")
    page.locator(".sheet button").first.focus()
    page.keyboard.press("Enter")
    assert dialog.evaluate("d => d.open")
    alts = "images => images.map(image => image.alt)"
    assert all(alt.endswith("picture 1") for alt in dialog.locator("img").evaluate_all(alts))
    assert "how sure" in dialog.inner_text()
    assert "ΔE2000" in dialog.inner_text()
    page.keyboard.press("ArrowRight")
    assert all(alt.endswith("picture 2") for alt in dialog.locator("img").evaluate_all(alts))
    for _ in range(5):
        page.keyboard.press("Tab")
        assert page.evaluate("document.getElementById('large').contains(document.activeElement)")
    page.keyboard.press("Escape")
    assert not dialog.evaluate("d => d.open")
    assert page.evaluate("document.activeElement.dataset.picture") == "0"
    assert page.locator("img:not([alt])").count() == 0


def test_how_sure_the_network_was_is_shown_when_asked_for(opened: Opened):
    row = opened.page.locator(".sheet tr.sure").first
    assert not row.is_visible()
    opened.page.locator("#show-sure").focus()
    opened.page.keyboard.press("Space")
    assert row.is_visible()


def test_the_map_shows_the_picture_of_a_dot(opened: Opened):
    page = opened.page
    frame = page.locator(".dots").first
    frame.scroll_into_view_if_needed()
    circle = frame.locator("circle").first
    box = circle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    thumb = frame.locator(".thumb")
    thumb.wait_for(state="visible")
    place = int(circle.get_attribute("data-place"))
    assert thumb.locator("span").inner_text() == CLASSES[place % 3]
    drawn = thumb.locator("canvas").evaluate("c => [...c.getContext('2d').getImageData(0, 0, 96, 96).data]")
    shown = np.array(drawn, np.float64).reshape(96, 96, 4)[..., :3].mean((0, 1))
    wanted = pictures(9, 40)[place].mean((1, 2))
    assert np.abs(shown - wanted).max() < 4  # JPEG, and nearest neighbour from 16 to 96 pixels
    page.mouse.move(0, 0)
    frame.focus()
    before = frame.locator("circle.now").count() and frame.locator("circle.now").get_attribute("data-place")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    assert frame.locator("circle.now").count() == 1
    assert frame.locator("circle.now").get_attribute("data-place") != before
    button = page.locator(".map").first.locator("[data-class]").first
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert page.locator(".map").first.locator("g.faint").count() == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone_and_text_has_contrast(browser: Any, report: Path, scheme: str):
    tab = Opened(browser, report, viewport={"width": 400, "height": 800}, color_scheme=scheme, has_touch=True)
    tab.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 400
    faint = tab.page.evaluate(CONTRAST)
    assert faint["texts"] > 100
    assert faint["below"] == []
    assert tab.errors == []
    tab.page.locator(".sheet button").first.click()
    assert tab.page.locator("#large").bounding_box()["width"] <= 400
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 400
    tab.context.close()


@pytest.mark.parametrize("width", [400, 1280])
def test_a_dozen_runs_stay_readable(browser: Any, tmp_path: Path, width: int):
    runs = [make_run(f"runs/2026-palette-{number:02d}", 0.5 + number / 50, number) for number in range(12)]
    tab = Opened(browser, write_report(runs, tmp_path / "dozen.html"), viewport={"width": width, "height": 900})
    assert "helped 12 of 12" in tab.page.locator("#answer .verdict").inner_text()
    tab.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.page.evaluate(CUT_OFF) == []
    curves = tab.page.locator("#transfer .charts svg").first
    legend = [text for text in curves.locator("text").all_text_contents() if text.startswith("runs/2026")]
    assert len(set(legend)) == len(legend)
    assert sum(not text.endswith(": rgb") for text in legend) == 12
    assert tab.errors == []
    tab.context.close()


# Words of a chart that reach beyond it are cut off.
CUT_OFF = """() => [...document.querySelectorAll(".figure svg")].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter(text => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
  }).map(text => text.textContent);
})"""

# WCAG 2.2, success criterion 1.4.3: (lighter + 0.05) / (darker + 0.05) of every text against what lies behind it.
CONTRAST = """() => {
  const pen = Object.assign(document.createElement("canvas"), {width: 1, height: 1})
    .getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map(i => top[3] * top[i] + (1 - top[3]) * below[i]);
  const behind = (element) => {
    if (!element) return [255, 255, 255];
    const own = rgba(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, behind(element.parentElement));
  };
  const light = (colour) => {
    const [r, g, b] = colour.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const below = []; let texts = 0;
  for (const element of document.querySelectorAll("body *")) {
    const words = [...element.childNodes].filter(n => n.nodeType === 3).map(n => n.data.trim()).join(" ").trim();
    if (!words || ["SCRIPT", "STYLE"].includes(element.tagName) || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const inside = element.closest("svg");
    const paint = inside && style.fill !== "none" ? style.fill : style.color;
    const back = behind(element);
    const a = light(over(rgba(paint), back)), b = light(back);
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    texts += 1;
    if (contrast < 4.5) below.push(`${element.tagName} ${words.slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  return {texts, below: below.slice(0, 20)};
}"""
