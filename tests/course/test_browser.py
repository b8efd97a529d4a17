"""The viewer in a real browser: in JupyterLab with a kernel, and in a file without kernel and network.

Needs Chromium: the one named by ALDEN_LITE_CHROMIUM, an installed one, or Playwright's own. Without one these
tests are skipped, except in CI, where they fail. What a canvas shows is compared with Python to the last bit.
"""

import base64
import io
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib import resources
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

from alden_lite.alden.pvm import crop_to_grid, load_pvm
from alden_lite.data.organs import GROUPS, sample_groups
from alden_lite.data.sample import load_sample
from alden_lite.explain.probes import token_labels
from alden_lite.physics.hounsfield import WINDOWS, grey_levels
from alden_lite.show.viewer import CTView, TokenView, difference_colours, similarity_colours
from alden_lite.show.viewer.tokenview import cosines, quantised

SIZE = (3, 40, 56)  # not square: rows are not columns
LONGEST_MS = 60_000
TALL = {"width": 1000, "height": 1600}  # both frames are seen: browsers let unseen ones sleep
FLAGS = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")

READ = """canvas => {
  const { width, height } = canvas;
  const bytes = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  let text = "";
  for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
  return btoa(text);
}"""
FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
MOVE = """(input, value) => {
  input.step = "any";
  input.value = value;
  input.dispatchEvent(new Event("input", { bubbles: true }));
}"""
AXE = """async selector => {
  const part = selector ? { include: [[selector]] } : document;
  const only = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
  const rules = { "page-has-heading-one": { enabled: false } }; // the page around us has one
  const { violations } = await axe.run(part, { runOnly: only, rules });
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map(node => node.html).join(" ")}`);
}"""


def ct(seed):
    """Whole HU from air to dense bone, with a flat square."""
    hu = np.random.default_rng(seed).integers(-1024, 3072, SIZE).astype(np.int16)
    hu[:, 10:20, 10:20] = 40 + seed
    return hu


def windows():
    """Every preset, and some that no one would choose."""
    rng = np.random.default_rng(7)
    random = zip(rng.uniform(-1000, 3000, 12), rng.uniform(1, 4000, 12), strict=True)
    whole = zip(rng.integers(-1000, 3000, 6).tolist(), rng.integers(1, 4000, 6).tolist(), strict=True)
    return [(one.level, one.width) for one in WINDOWS.values()] + [*random, *whole, (40, 1)]


def four_panels(**options):
    panels = {"low dose": ct(0), "denoised": ct(1), "normal dose": ct(2)}
    labels = (np.arange(np.prod(SIZE)).reshape(SIZE) // 300 % 4).astype(np.uint8)
    names = ["", "liver", "spleen", "bone"]
    options = {"spacing_mm": 0.7, "labels": labels, "label_names": names, "difference": True} | options
    return CTView(panels, **options)


def expected(view, level, width, z):
    """RGBA of all panels, (P, Y, X, 4)."""
    *scans, difference = view._slices(z).values()
    pictures = [np.repeat(grey_levels(hu, level, width)[..., None], 3, -1) for hu in scans]
    pictures.append(difference_colours(difference, view.difference_hu))
    opaque = np.full((*SIZE[1:], 1), 255, np.uint8)
    return np.stack([np.concatenate([picture, opaque], -1) for picture in pictures])


def shown(place):
    """RGBA of all canvases with a CT in a page or frame, (P, Y, X, 4)."""
    return np.stack([read(canvas) for canvas in place.locator(".picture canvas[role=img]").all()])


def settle(page, *what):
    """Wait for a picture that the kernel asked for: its message comes when it comes."""
    for _ in range(100):
        if np.array_equal(shown(page), expected(*what)):
            return
        page.wait_for_timeout(50)


def read(canvas):
    """RGBA of one canvas, (Y, X, 4)."""
    width, height = (int(canvas.get_attribute(name)) for name in ("width", "height"))
    return np.frombuffer(base64.b64decode(canvas.evaluate(READ)), np.uint8).reshape(height, width, 4)


# The browser


def chromium_path():
    """An installed Chromium, or None for Playwright's own."""
    named = os.environ.get("ALDEN_LITE_CHROMIUM")
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return named or next((path for path in found if path), None)


def without_browser(reason):
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI needs a browser: {reason}")
    how = (
        "install the extra `dev`, and name a Chromium in ALDEN_LITE_CHROMIUM or `playwright install chromium`"
    )
    pytest.skip(f"{reason}: {how}")


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        without_browser("the package playwright is not installed")
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=chromium_path(), args=list(FLAGS))
        except Error as error:
            without_browser(f"no Chromium can be started ({str(error).splitlines()[0]})")
        yield started
        started.close()


@pytest.fixture
def static_page(browser, tmp_path):
    """Opens views as a file without network; at the end, nothing was asked for and nothing went wrong."""
    wrong, contexts = [], []

    def opened(*views, **context):
        body = "".join(view.to_html() for view in views)
        path = tmp_path / f"{len(contexts)}.html"
        page_html = f'<!DOCTYPE html><html lang="en"><title>CT</title><body>{body}</body></html>'
        path.write_text(page_html, encoding="ascii")
        contexts.append(browser.new_context(offline=True, **context))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        page.on("request", lambda request: asked(request.url))
        page.goto(path.as_uri())
        return page

    def asked(url):
        if not url.startswith(("file:", "data:", "about:")):
            wrong.append(f"asked for {url}")

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


def frame_of(page, number=0):
    """The number-th viewer's frame, once it has drawn."""
    frame = page.locator("iframe").nth(number).element_handle().content_frame()
    frame.locator(".window").wait_for()
    frame.wait_for_function(
        "() => document.querySelector('.alden-lite-ctview').shadowRoot.querySelector('.window').textContent"
    )
    return frame


def slider(place, trait):
    return place.locator(f".slider[data-trait={trait}] input")


def text(place):
    place.evaluate(FRAMES)
    return place.locator(".window").text_content()


# A page without kernel and network


def test_a_page_shows_the_greys_that_python_says(static_page):
    view = four_panels(slice=1)
    frame = frame_of(static_page(view))
    for level, width in windows():
        slider(frame, "level").evaluate(MOVE, level)
        slider(frame, "width").evaluate(MOVE, width)
        frame.evaluate(FRAMES)
        assert np.array_equal(shown(frame), expected(view, level, width, 1)), f"L {level} W {width}"


def test_a_page_shows_the_slice_and_the_range_of_differences_asked_for(static_page):
    view = four_panels()
    frame = frame_of(static_page(view))
    slider(frame, "slice").fill("2")
    slider(frame, "difference_hu").fill("333")
    frame.evaluate(FRAMES)
    view.difference_hu = 333
    assert np.array_equal(shown(frame), expected(view, 40, 400, 2))


def test_the_sample_patient_is_shown_as_python_says(static_page, tmp_path):
    """Also the picture of the README: with ALDEN_LITE_SCREENSHOTS, it is put into that folder."""
    volume = load_sample()
    slices = {"slice 28": volume.hu[28], "slice 92": volume.hu[92]}
    page = static_page(CTView(slices, spacing_mm=volume.spacing_mm), viewport={"width": 1000, "height": 760})
    frame = frame_of(page)
    frame.evaluate(FRAMES)
    for canvas, hu in zip(frame.locator(".picture canvas[role=img]").all(), slices.values(), strict=True):
        assert np.array_equal(read(canvas)[..., 0], grey_levels(hu, 40, 400))
    folder = Path(os.environ.get("ALDEN_LITE_SCREENSHOTS") or tmp_path)
    page.locator("iframe").screenshot(path=folder / "viewer.png")
    assert (folder / "viewer.png").stat().st_size > 50_000


def test_sliders_presets_and_keys_set_the_window_and_say_it(static_page):
    frame = frame_of(static_page(four_panels()))
    assert text(frame) == "L 40 W 400 HU"
    slider(frame, "level").focus()
    slider(frame, "level").press("ArrowRight")
    assert text(frame) == "L 41 W 400 HU"
    assert slider(frame, "level").get_attribute("aria-valuetext") == "41 HU"
    frame.get_by_role("button", name="lung").click()
    assert text(frame) == "L −600 W 1500 HU"
    frame.locator(".stage").focus()
    for key, window in [
        ("ArrowUp", "L −595 W 1500 HU"),
        ("ArrowLeft", "L −595 W 1495 HU"),
        ("4", "L 60 W 150 HU"),
    ]:
        frame.locator(".stage").press(key)
        assert text(frame) == window
    frame.locator(".stage").press("End")
    frame.evaluate(FRAMES)
    assert slider(frame, "slice").input_value() == "2"
    frame.wait_for_timeout(700)
    assert frame.locator("[aria-live=polite]").text_content().startswith("slice 2, L 60 W 150 HU")


def test_a_drag_to_the_right_widens_and_a_drag_upwards_raises(static_page):
    page = static_page(CTView(ct(0)))
    frame = frame_of(page)
    box = frame.locator(".box").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 125, box["y"] + 50, steps=3)
    page.mouse.up()
    assert text(frame) == "L 120 W 440 HU"  # 400 HU in 250 pixels


def test_the_wheel_turns_slices_and_with_ctrl_it_enlarges_the_place_below_it(static_page):
    page = static_page(CTView({"a": ct(0), "b": ct(1)}))
    frame = frame_of(page)
    frame.locator(".box").first.hover(position={"x": 100, "y": 50})
    before = frame.locator(".status").text_content()
    page.mouse.wheel(0, -100)
    frame.evaluate(FRAMES)
    assert slider(frame, "slice").input_value() == "2"
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    frame.evaluate(FRAMES)
    moved = frame.locator(".picture").evaluate_all("all => all.map(one => one.style.transform)")
    assert moved[0] == moved[1] and "scale(1)" not in moved[0]
    assert frame.locator(".status").text_content().split(",")[:2] == before.split(",")[:2]
    frame.locator(".box").first.dblclick(position={"x": 9, "y": 9})
    frame.evaluate(FRAMES)
    assert frame.locator(".picture").first.evaluate("one => one.style.transform").endswith("scale(1)")


def touches(page, frame):
    """Fingers on the first picture: `touch(kind, *places)`, a place for each finger that is down."""
    box = frame.locator(".box").first.bounding_box()
    session = page.context.new_cdp_session(page)

    def touch(kind, *places):
        points = [{"x": box["x"] + x, "y": box["y"] + y, "id": n} for n, (x, y) in enumerate(places)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    return touch


def moved(frame):
    """How the picture lies in its box."""
    return frame.locator(".picture").first.evaluate("one => one.style.transform")


def lies(frame):
    """The same as numbers to compare with, [x, y, scale]: places on a screen are rounded."""
    frame.evaluate(FRAMES)
    return pytest.approx([float(number) for number in re.findall(r"-?[0-9.]+", moved(frame))], abs=0.01)


def test_two_fingers_enlarge_and_one_sets_the_window(static_page):
    page = static_page(CTView(ct(0)), viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    frame = frame_of(page)
    touch = touches(page, frame)
    touch("touchStart", (100, 100))
    touch("touchMove", (125, 100))
    touch("touchEnd")
    assert text(frame) == "L 40 W 440 HU"
    touch("touchStart", (100, 100), (140, 100))
    touch("touchMove", (80, 100), (160, 100))
    touch("touchEnd")
    assert text(frame) == "L 40 W 440 HU"
    assert "scale(2)" in moved(frame)
    wide = frame.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    assert wide, "the page must not scroll sideways on a telephone"


@pytest.mark.parametrize(
    "ways",
    [
        [(80, 140), (80, 160)],
        [(100, 160), (80, 160)],
        [(100 - step, 140 + step) for step in range(1, 21)],
        [(100 - (step + 1) // 2, 140 + step // 2) for step in range(1, 41)],
        [(119, 121), (80, 160)],
        [(20, 300), (80, 160)],
    ],
    ids=["first, then second", "second, then first", "together", "in turns", "closer first", "wider first"],
)
def test_only_where_two_fingers_began_and_are_decides_how_a_picture_lies(static_page, ways):
    page = static_page(CTView(ct(0)), viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    frame = frame_of(page)
    touch = touches(page, frame)
    touch("touchStart", (100, 100), (140, 100))
    for one, other in ways:
        touch("touchMove", (one, 100), (other, 100))
    # The place between the fingers, 120 from the left and 100 from above, stays where it was at scale 2.
    assert lies(frame) == [-120, -100, 2]


def test_a_third_finger_moves_nothing_and_a_pinch_goes_on_without_it(static_page):
    page = static_page(CTView(ct(0)), viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    frame = frame_of(page)
    box = frame.locator(".box")
    box.evaluate(
        "box => { box.ids = []; box.addEventListener('pointerdown', (e) => box.ids.push(e.pointerId)); }"
    )

    def lift(number):  # Chromium's protocol lifts all fingers or none
        up = "new PointerEvent('pointerup', { pointerId: box.ids[number] })"
        box.evaluate(f"(box, number) => box.dispatchEvent({up})", number)

    touch = touches(page, frame)
    touch("touchStart", (100, 100), (140, 100))
    touch("touchMove", (80, 100), (160, 100))
    touch("touchStart", (80, 100), (160, 100), (120, 150))
    touch("touchMove", (80, 100), (160, 100), (60, 190))
    frame.evaluate(FRAMES)
    assert "scale(2)" in moved(frame)
    lift(2)
    touch("touchMove", (60, 100), (180, 100), (60, 190))
    frame.evaluate(FRAMES)
    assert "scale(3)" in moved(frame)
    lift(1)
    touch("touchMove", (30, 60), (180, 100), (60, 190))  # the one that stays drags nothing
    frame.evaluate(FRAMES)
    assert "scale(3)" in moved(frame) and text(frame) == "L 40 W 400 HU"
    touch("touchStart", (30, 60), (180, 100), (60, 190), (70, 60))  # one put down again begins another pinch
    touch("touchMove", (30, 60), (180, 100), (60, 190), (110, 60))
    assert lies(frame) == [-510, -460, 6]


def test_a_picture_follows_two_fingers_and_a_limit_reached_is_forgotten(static_page):
    page = static_page(CTView(ct(0)), viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    frame = frame_of(page)
    touch = touches(page, frame)
    touch("touchStart", (118, 100), (122, 100))
    touch("touchMove", (20, 100), (220, 100))  # 50 times as far apart
    assert lies(frame) == [-2760, -2300, 24]
    touch("touchMove", (116, 100), (124, 100))
    assert lies(frame) == [-120, -100, 2]
    touch("touchMove", (126, 120), (134, 120))
    assert lies(frame) == [-110, -80, 2]


def test_the_probe_and_the_regions_say_what_python_says(static_page):
    view = four_panels(slice=1)
    page = static_page(view)
    frame = frame_of(page)
    box = frame.locator(".box").first.bounding_box()
    pixel = box["width"] / SIZE[2]

    def drag(x0, y0, x1, y1):
        page.mouse.move(box["x"] + x0 * pixel, box["y"] + y0 * pixel)
        page.mouse.down()
        page.mouse.move(box["x"] + x1 * pixel, box["y"] + y1 * pixel, steps=2)
        page.mouse.up()
        frame.evaluate(FRAMES)

    page.mouse.move(box["x"] + 12.5 * pixel, box["y"] + 7.5 * pixel)
    frame.evaluate(FRAMES)
    values = " · ".join(f"{title} {hu[7, 12]}" for title, hu in view._slices(1).items())
    name = view._facts["label_names"].get(str(view._ids[1, 7, 12]))
    words = f"(12, 7, 1): {values} HU" + (f" · {name}" if name else "")
    assert frame.locator(".status span").text_content() == words.replace(" -", " −")
    for tool in ("box", "circle"):
        frame.locator(f"[data-tool={tool}]").click()
        drag(12, 13, 30, 33)
        view.roi = {"kind": "box", "x0": 12, "y0": 13, "x1": 30, "y1": 33}
        if tool == "circle":
            view.roi = {"kind": "circle", "x": 12, "y": 13, "r": round(np.hypot(18, 20), 1)}
        results = frame.locator(".region").text_content()
        for title, (mean, deviation) in view.roi_statistics().items():
            assert f"{title} {mean:.1f} ± {deviation:.1f} HU".replace("-", "−") in results
    frame.locator("[data-tool=profile]").click()
    drag(5, 5, 50, 5)
    assert frame.locator(".chart polyline").count() == 4
    assert "Profile of 31.5 mm" in frame.locator(".chart").get_attribute("aria-label")
    frame.get_by_role("button", name="Clear").click()
    frame.evaluate(FRAMES)
    assert frame.locator(".region, .chart").count() == 0


def test_the_curtain_shows_one_panel_left_of_it_and_another_one_right(static_page):
    frame = frame_of(static_page(four_panels()))
    frame.locator("[data-tool=wipe]").click()
    frame.get_by_label("Right of the curtain").select_option("normal dose")
    frame.get_by_role("slider", name="Curtain").fill("25")
    frame.evaluate(FRAMES)
    assert frame.locator(".panel:visible .caption").all_text_contents() == ["low dose | normal dose"]
    over = frame.locator(".panel:visible canvas[aria-label='normal dose']")
    assert over.evaluate("canvas => canvas.style.clipPath") == "inset(0px 0px 0px 25%)"
    frame.locator("[data-tool=wipe]").click()
    frame.evaluate(FRAMES)
    assert frame.locator(".panel:visible").count() == 4


def test_labels_have_names_colours_and_can_be_left_out(static_page):
    view = four_panels(slice=0)
    frame = frame_of(static_page(view))
    canvas = frame.locator(".picture canvas[aria-hidden]").first

    def covered():
        frame.evaluate(FRAMES)
        return read(canvas)[..., 3] > 0

    assert np.array_equal(covered(), view._ids[0] > 0)
    frame.get_by_label("spleen").uncheck()
    assert np.array_equal(covered(), (view._ids[0] > 0) & (view._ids[0] != 2))
    slider(frame, "opacity").fill("0.75")
    frame.evaluate(FRAMES)
    assert canvas.evaluate("canvas => canvas.style.opacity") == "0.75"


def test_two_viewers_on_a_page_do_not_know_of_each_other(static_page):
    page = static_page(CTView(ct(0)), CTView(ct(1), level=-600, width=1500), viewport=TALL)
    first, second = frame_of(page, 0), frame_of(page, 1)
    slider(first, "level").fill("100")
    assert (text(first), text(second)) == ("L 100 W 400 HU", "L −600 W 1500 HU")


def test_a_title_is_text_and_nothing_else(static_page):
    title = '<img src="x" onerror="alert(1)">'
    frame = frame_of(static_page(CTView({title: ct(0)}, label_names={1: "<b>"}, labels=ct(0) > 0)))
    assert frame.locator(".caption").text_content() == title
    assert frame.locator("img, b").count() == 0


def test_where_no_script_may_run_the_strip_is_seen(browser, tmp_path):
    fragment = CTView(ct(0)).to_html().replace('sandbox="allow-scripts"', 'sandbox=""')
    (tmp_path / "page.html").write_text(f"<!DOCTYPE html>{fragment}", encoding="ascii")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    image = page.get_by_role("img")
    assert image.get_attribute("alt").startswith("CT in four windows, abdomen")
    assert image.bounding_box()["width"] == 4 * SIZE[2]
    assert np.asarray(Image.open(io.BytesIO(image.screenshot()))).std() > 20  # the frame does not cover it
    assert not page.frames[1].locator("canvas").count()
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_is_accessible(browser, static_page, scheme):
    page = static_page(four_panels(), color_scheme=scheme, bypass_csp=True)
    frame = frame_of(page)
    for tool in ("wipe", "circle"):
        frame.locator(f"[data-tool={tool}]").click()
    frame.locator(".stage").press("ArrowRight")  # makes a circle
    frame.get_by_text("Mouse, touch and keys").click()
    frame.evaluate(axe_source())
    assert frame.evaluate(AXE, None) == []


def axe_source():
    try:
        package = resources.files("axe_playwright_python")
    except ModuleNotFoundError:
        without_browser("the package axe-playwright-python is not installed")
    return package.joinpath("axe.min.js").read_text(encoding="utf-8")


# Tokens, on a page without kernel and network

SIDE = 8
GRID = (SIZE[1] // SIDE, SIZE[2] // SIDE)  # 5 x 7 tokens
IMPORT = """async ([source, tokens, query]) => {
  const bytes = new TextEncoder().encode(source);
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  const { cosines } = await import(`data:text/javascript;charset=utf-8;base64,${btoa(text)}`);
  return [...cosines(Int8Array.from(tokens), Int8Array.from(query))];
}"""


def maps(seed, channels=12):
    """(Z, C, h, w): features that differ in length, some alike, and one token of zeros."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(SIZE[0], channels, *GRID)) * rng.uniform(0.1, 10, (SIZE[0], 1, *GRID))
    noise[:, :, 1:4, 2:5] += np.arange(channels)[:, None, None] * 3  # these are alike
    noise[:, :, 0, 0] = 0
    return noise


def token_view(**options):
    titles = ["low dose", "normal dose"]
    layers = {
        name: {title: maps(10 * n + i, 64 + n) for i, title in enumerate(titles)}
        for n, name in enumerate(("block 4", "block 9"))
    }
    panels = {title: ct(i) for i, title in enumerate(titles)}
    options = {"spacing_mm": 0.7, "difference": True, "slice": 1} | options
    return TokenView(panels, features=layers, **options)


def token_frame(page):
    frame = frame_of(page)
    frame.locator(".tokens p").wait_for()
    return frame


def overlays(place):
    """RGBA of the similarities of all panels that have any, (P, h, w, 4)."""
    place.evaluate(FRAMES)
    return np.stack([read(canvas) for canvas in place.locator(".picture .overlay").all()])


def expected_overlays(view):
    blank = np.zeros((*GRID, 4), np.uint8)
    colours = [similarity_colours(one, view.threshold) for one in view.similarities().values()]
    return np.stack([*(colours or [blank, blank]), blank])  # the last one is the difference's


def click_token(page, frame, row, column, panel=0):
    box = frame.locator(".box:visible").nth(panel).bounding_box()
    at = [(column + 0.4) / GRID[1] * box["width"], (row + 0.7) / GRID[0] * box["height"]]
    page.mouse.click(box["x"] + at[0], box["y"] + at[1])
    frame.evaluate(FRAMES)


def token_words(frame):
    frame.evaluate(FRAMES)
    return frame.locator(".tokens p").text_content()


def test_the_browser_computes_pythons_cosines_to_the_last_bit(browser):
    page = browser.new_page()
    page.goto("about:blank")
    for channels in (1, 12, 384):
        tokens = quantised(maps(channels, channels)[0]).reshape(-1, channels)
        for query in tokens[[0, 9, 20]]:  # the first one is all zeros
            numbers = page.evaluate(IMPORT, [TokenView._esm, tokens.ravel().tolist(), query.tolist()])
            assert numbers == cosines(tokens, query).tolist()
    page.close()


def test_a_click_lays_the_similarities_over_all_panels_as_python_says(static_page):
    view = token_view()
    page = static_page(view, viewport=TALL)
    frame = token_frame(page)
    assert np.array_equal(overlays(frame), expected_overlays(view))  # nothing yet
    assert token_words(frame).startswith("Click the picture")
    for panel, row, column, threshold, layer in [
        (0, 2, 3, 0.5, "block 4"),
        (1, 0, 6, -0.25, "block 9"),
        (0, 4, 0, 0.99, "block 9"),
        (1, 0, 0, 0, "block 4"),
    ]:
        click_token(page, frame, row, column, panel)
        slider(frame, "threshold").evaluate(MOVE, threshold)
        frame.get_by_label("Layer").select_option(layer)
        view.token = {"panel": panel, "row": row, "column": column}
        view.threshold, view.layer = threshold, layer
        assert np.array_equal(overlays(frame), expected_overlays(view)), (panel, row, column)
        shares = [
            f"{np.floor(100 * np.mean(one >= threshold) + 0.5):.0f} % of {title}"
            for title, one in view.similarities().items()
        ]
        assert token_words(frame) == (
            f"Token row {row} column {column} of {view.token['panel']}, slice 1. Similarity of "
            f"{threshold:.2f} or more in {layer}: {', '.join(shares)}"
        ).replace(" -", " −")
    assert np.array_equal(shown(frame), expected(view, 40, 400, 1))  # below, the CT is as it was


def test_a_click_on_the_liver_finds_the_liver_30_mm_away(static_page, tmp_path):
    """Also the picture of the README: with ALDEN_LITE_SCREENSHOTS, it is put into that folder."""
    volume, pvm = load_sample(), load_pvm(taps=(9,))
    slices = {f"slice {z}": crop_to_grid(volume.hu[z]) for z in (40, 52)}
    with torch.no_grad():
        block_9 = {title: pvm(torch.from_numpy(hu)[None, None].float())[0][0] for title, hu in slices.items()}
    view = TokenView(slices, features={"block 9": block_9}, spacing_mm=volume.spacing_mm, threshold=0.7)
    page = static_page(view, viewport={"width": 1000, "height": 800})
    frame = token_frame(page)
    box = frame.locator(".box").first.bounding_box()
    page.mouse.click(box["x"] + 9.5 / 36 * box["width"], box["y"] + 14.5 / 36 * box["height"])
    view.token = {"panel": 0, "row": 14, "column": 9}
    assert np.array_equal(
        overlays(frame), np.stack([similarity_colours(one, 0.7) for one in view.similarities().values()])
    )
    groups = token_labels(sample_groups(crop_to_grid(volume.labels[52]))).group
    found = groups[view.similarities()["slice 52"] >= 0.7]
    assert len(found) > 35 and (found == 1 + GROUPS.index("liver")).mean() > 0.95
    folder = Path(os.environ.get("ALDEN_LITE_SCREENSHOTS") or tmp_path)
    page.locator("iframe").screenshot(path=folder / "tokens.png")
    assert (folder / "tokens.png").stat().st_size > 50_000


def test_another_slice_is_compared_with_the_same_token(static_page):
    view = token_view(token={"panel": 1, "row": 2, "column": 3})
    frame = token_frame(static_page(view))
    assert frame.locator(".marks rect").count() == 2  # a frame, in two colours
    slider(frame, "slice").fill("2")
    frame.evaluate(FRAMES)
    view.slice = 2
    assert np.array_equal(overlays(frame), expected_overlays(view))
    assert "of normal dose, slice 1." in token_words(frame)
    assert frame.locator(".marks rect").count() == 0


def test_the_pointer_says_the_similarity_below_it(static_page):
    view = token_view(token={"panel": 0, "row": 2, "column": 3})
    page = static_page(view, viewport=TALL)
    frame = token_frame(page)
    box = frame.locator(".box").nth(1).bounding_box()
    page.mouse.move(box["x"] + 23.5 / SIZE[2] * box["width"], box["y"] + 8.5 / SIZE[1] * box["height"])
    frame.evaluate(FRAMES)
    assert (
        frame.locator(".marks rect[stroke='#fff']").count() == 1
    )  # a thin frame of what a click would choose
    low, normal = (one[1, 2] for one in view.similarities().values())
    said = frame.locator(".status span").text_content()
    assert said.startswith(f"(23, 8, 1): low dose {ct(0)[1, 8, 23]} · ".replace("-", "−"))
    assert said.endswith(f"HU · similarity low dose {low:.2f} · normal dose {normal:.2f}".replace("-", "−"))
    frame.locator(".box").nth(2).hover()
    frame.evaluate(FRAMES)
    assert frame.locator(".marks rect[stroke='#fff']").count() == 0  # a difference has no tokens


def test_a_drag_chooses_the_token_below_the_pointer_and_other_tools_do_as_ever(static_page):
    page = static_page(token_view(), viewport=TALL)
    frame = token_frame(page)
    box = frame.locator(".box").nth(1).bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] - 2, steps=3)
    page.mouse.up()
    assert token_words(frame).startswith("Token row 4 column 6 of normal dose")
    assert text(frame) == "L 40 W 400 HU"
    frame.evaluate(FRAMES)  # the words about the token are drawn: what lies below them moves no more
    window = frame.locator("[data-tool=window]")
    window.click()
    assert window.get_attribute("aria-pressed") == "true"
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 75, box["y"] + 50, steps=2)
    page.mouse.up()
    frame.locator(".window", has_text="L 40 W 440 HU").wait_for()
    assert token_words(frame).startswith("Token row 4 column 6 of normal dose")
    frame.locator("[data-tool=token]").click()
    difference = frame.locator(".box").nth(2).bounding_box()
    page.mouse.click(difference["x"] + 9, difference["y"] + 9)
    assert token_words(frame).startswith("Token row 4 column 6 of normal dose"), "a difference has no tokens"


def test_keys_move_the_token_and_a_screen_reader_hears_of_it(static_page):
    frame = token_frame(static_page(token_view()))
    stage = frame.locator(".stage")
    for key, place in [
        ("ArrowRight", "row 2 column 4 of low dose"),  # from the middle
        ("ArrowUp", "row 1 column 4 of low dose"),
        ("Shift+ArrowLeft", "row 1 column 0 of low dose"),
        ("ArrowLeft", "row 1 column 0 of low dose"),  # the edge
        ("Shift+ArrowDown", "row 4 column 0 of low dose"),
        ("p", "row 4 column 0 of normal dose"),
        ("p", "row 4 column 0 of low dose"),  # there are two; the difference has no tokens
        ("ArrowRight", "row 4 column 1 of low dose"),
        ("PageUp", "row 4 column 1 of low dose, slice 1"),
        ("ArrowUp", "row 3 column 1 of low dose, slice 2"),
    ]:
        stage.press(key)
        assert token_words(frame).startswith(f"Token {place}"), key
    frame.wait_for_timeout(700)
    spoken = frame.locator("[aria-live=polite]").text_content()
    assert spoken.startswith(
        "Token row 3 column 1 of low dose, slice 2. Similarity of 0.50 or more in block 4: "
    )
    share = spoken.partition(" of low dose, ")[2].rpartition(": ")[2].partition(" of ")[0]
    name = frame.locator("canvas[role=img]").first.get_attribute("aria-label")
    assert name == f"low dose, {share} of it similar to the chosen token"
    stage.press("Escape")
    assert token_words(frame).startswith("Click the picture")
    assert not overlays(frame).any()
    assert frame.locator("canvas[role=img]").first.get_attribute("aria-label") == "low dose"


def test_the_overlay_has_an_opacity_of_its_own_which_its_scale_shares(static_page):
    labels = np.ones(SIZE, np.uint8)
    frame = token_frame(static_page(token_view(labels=labels, overlay_opacity=0.25, opacity=0.75)))
    frame.evaluate(FRAMES)
    overlay, label = frame.locator(".overlay").first, frame.locator("canvas[aria-hidden]:not(.overlay)").first
    scale = frame.locator(".scale canvas")
    for one in (overlay, scale):
        assert one.evaluate("one => one.style.opacity") == "0.25"
    slider(frame, "overlay_opacity").fill("0.9")
    frame.evaluate(FRAMES)
    for one in (overlay, scale):
        assert one.evaluate("one => one.style.opacity") == "0.9"
    assert label.evaluate("one => one.style.opacity") == "0.75"


def test_with_a_curtain_each_side_has_its_own_overlay_and_tokens(static_page):
    page = static_page(token_view(), viewport=TALL)
    frame = token_frame(page)
    frame.locator("[data-tool=wipe]").click()
    frame.get_by_role("slider", name="Curtain").fill("30")
    frame.evaluate(FRAMES)
    for column, title in ((0, "low dose"), (5, "normal dose")):
        click_token(page, frame, 3, column)
        assert token_words(frame).startswith(f"Token row 3 column {column} of {title}")
        assert frame.locator(".panel:visible .marks rect[stroke='#ffe14d']").count() == 1
    clips = frame.locator(".panel:visible .overlay").evaluate_all("all => all.map(one => one.style.clipPath)")
    assert clips == ["inset(0px 70% 0px 0px)", "inset(0px 0px 0px 30%)"]
    frame.get_by_role("slider", name="Curtain").fill("95")
    frame.evaluate(FRAMES)
    assert frame.locator(".panel:visible .marks rect[stroke='#ffe14d']").count() == 0, (
        "its picture is covered"
    )
    frame.locator("[data-tool=wipe]").click()
    frame.evaluate(FRAMES)
    for number in range(3):
        overlay = frame.locator(".picture").nth(number).locator(".overlay")
        assert overlay.evaluate_all("all => all.map(one => one.style.clipPath)") == [""]


def test_an_enlarged_picture_has_its_tokens_where_they_are_seen(static_page):
    page = static_page(token_view(), viewport=TALL)
    frame = token_frame(page)
    box = frame.locator(".box").first.bounding_box()
    frame.locator(".box").first.hover(position={"x": box["width"] - 1, "y": box["height"] - 1})
    page.keyboard.down("Control")
    for _ in range(5):
        page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    frame.evaluate(FRAMES)
    page.mouse.click(box["x"] + 5, box["y"] + 5)  # more than four times as large: the last row and columns
    assert token_words(frame).startswith("Token row 4 column 6 of low dose")


def test_two_fingers_enlarge_and_choose_no_token(static_page):
    page = static_page(token_view(), viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    frame = token_frame(page)
    touch = touches(page, frame)
    touch("touchStart", (5, 5))
    touch("touchEnd")
    assert token_words(frame).startswith("Token row 0 column 0 of low dose")
    touch("touchStart", (50, 50))
    touch("touchStart", (50, 50), (80, 50))
    touch("touchMove", (40, 50), (100, 50))
    touch("touchEnd")
    assert token_words(frame).startswith("Token row 0 column 0 of low dose")
    assert "scale(2)" in moved(frame)
    assert frame.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")


def test_tokens_of_a_down_sampled_picture_keep_their_places(browser, tmp_path):
    """Squares of 3 pixels leave 13 rows and 18 columns; 5 x 7 tokens of 8 / 3 pixels reach beyond them."""
    view = token_view(token={"panel": 0, "row": 2, "column": 3})
    path = tmp_path / "page.html"
    path.write_text(f"<!DOCTYPE html>{view.to_html(downsample=3)}", encoding="ascii")
    page = browser.new_page(viewport=TALL)
    page.goto(path.as_uri())
    frame = token_frame(page)
    frame.evaluate(FRAMES)
    overlay, picture = (
        frame.locator(place).first.bounding_box() for place in (".overlay", ".picture canvas[role=img]")
    )
    assert overlay["width"] / picture["width"] == pytest.approx(7 * 8 / 3 / 18, abs=0.01)
    assert overlay["height"] / picture["height"] == pytest.approx(5 * 8 / 3 / 13, abs=0.01)
    assert np.array_equal(overlays(frame), expected_overlays(view))
    for pixel, column in ((4, 1), (5, 2), (17, 6)):  # their middles are 13.5, 16.5 and 52.5 in the volume
        page.mouse.click(picture["x"] + (pixel + 0.5) / 18 * picture["width"], picture["y"] + 3)
        assert token_words(frame).startswith(f"Token row 0 column {column} of low dose")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_with_tokens_is_accessible(static_page, scheme):
    page = static_page(token_view(), color_scheme=scheme, bypass_csp=True)
    frame = token_frame(page)
    frame.locator(".stage").press("ArrowRight")
    frame.get_by_text("Mouse, touch and keys").click()
    frame.evaluate(axe_source())
    assert frame.evaluate(AXE, None) == []


# JupyterLab with a kernel

CELLS = [
    """import numpy as np
from alden_lite.show.viewer import CTView
scans = dict(np.load("scans.npz"))
view = CTView(scans, difference=True, spacing_mm=0.7, slice=1)
view""",
    """import ipywidgets as widgets
linked = widgets.FloatSlider(40, min=-1000, max=1000, description="linked")
widgets.jslink((linked, "value"), (view, "level"))
linked""",
    """heard = widgets.Label()
def hear(change):
    heard.value = f"{view.level} {view.width} {view.slice} {view.roi}"
view.observe(hear, ["level", "width", "slice", "roi"])
heard""",
    """windows = np.load("windows.npy")
chosen = widgets.IntText(-1, description="window")
def choose(change):
    with view.hold_sync():
        view.level, view.width = windows[chosen.value]
    hear(change)
chosen.observe(choose, "value")
chosen""",
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address of a JupyterLab of its own, and its folder: no settings, extensions or news of the user's."""
    folder = tmp_path_factory.mktemp("lab")
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps({"fetchNews": "false"}))
    (settings / "themes.jupyterlab-settings").write_text(json.dumps({"theme": "JupyterLab Dark"}))
    work = folder / "work"
    work.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    environment = os.environ | {
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    environment.pop("ALDEN_LITE_STATIC", None)
    options = [
        *("--no-browser", "--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={token}"),
        *("--LabApp.expose_app_in_browser=True", "--allow-root", f"--notebook-dir={work}"),
    ]
    log = folder / "lab.log"
    with log.open("w") as out:
        command = [sys.executable, "-m", "jupyter", "lab", *options]
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT, cwd=work)
    try:
        wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", server, log)
        yield f"http://127.0.0.1:{port}", token, work
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_for(url, server, log):
    for _ in range(240):
        assert server.poll() is None, f"JupyterLab ended: {log.read_text()[-2000:]}"
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.25)
    pytest.fail(f"JupyterLab did not start: {log.read_text()[-2000:]}")


def write_notebook(path: Path, cells):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


@pytest.fixture(scope="module")
def notebook(browser, lab):
    """The notebook, run from top to bottom in JupyterLab, and what has gone over its kernel's line since."""
    work = lab[-1]
    np.savez(work / "scans.npz", **{"low dose": ct(0), "denoised": ct(1), "normal dose": ct(2)})
    np.save(work / "windows.npy", windows())
    write_notebook(work / "viewer.ipynb", CELLS)
    page, line = run_notebook(browser, lab, "viewer.ipynb")
    page.locator(".noUi-handle").wait_for()
    page.get_by_label("window", exact=True).wait_for()
    page.wait_for_timeout(500)
    yield page, line
    page.close()


def run_notebook(browser, lab, name):
    """A page with the notebook and its viewer, and the sizes of what goes over its kernel's line."""
    address, token, _ = lab
    page = browser.new_page(viewport={"width": 1200, "height": 1600})
    page.set_default_timeout(LONGEST_MS)
    line = []

    def listen(socket):
        for event in ("framesent", "framereceived"):
            socket.on(event, lambda data, event=event: line.append((event, len(data))))

    page.on("websocket", listen)
    page.goto(f"{address}/doc/tree/{name}?token={token}&reset", wait_until="domcontentloaded")
    idle = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status == 'idle'"
    page.wait_for_function(idle, timeout=LONGEST_MS)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    page.locator(".alden-lite-ctview .window").wait_for()
    page.wait_for_function(idle)  # JupyterLab takes the focus when the last cell has run
    return page, line


def heard(page, part):
    """What Python last heard of the traits, once this is a part of it."""
    label = page.locator(".widget-label", has_text=part)
    label.wait_for()
    return label.text_content()


def test_jupyter_shows_the_greys_that_python_says(notebook):
    page, _ = notebook
    view = four_panels()
    chosen = page.get_by_label("window", exact=True)
    for number, (level, width) in enumerate(windows()):
        chosen.fill(str(number))
        chosen.press("Enter")
        start = f"{float(level)} {float(width)} 1 None"
        assert heard(page, start) == start
        settle(page, view, level, width, 1)
        assert np.array_equal(shown(page), expected(view, level, width, 1)), f"L {level} W {width}"


def test_in_jupyter_keys_reach_the_viewer_and_not_the_notebook(notebook):
    page, _ = notebook
    cells = "() => window.jupyterapp.shell.currentWidget.content.widgets.length"
    before = page.evaluate(cells)
    page.get_by_role("button", name="abdomen").click()
    page.locator("[data-tool=window]").click()  # tests come in any order
    stage = page.locator(".stage")
    for key in ("a", "b", "x", "ArrowDown", "ArrowRight", "PageUp"):
        stage.press(key)
    assert text(page) == "L 45 W 405 HU"
    assert heard(page, "45.0 405.0 2 ")
    slider(page, "level").focus()
    slider(page, "level").press("ArrowUp")
    assert text(page) == "L 46 W 405 HU"
    assert page.evaluate(cells) == before
    stage.press("PageDown")
    assert heard(page, "46.0 405.0 1 ")


def test_in_jupyter_a_linked_slider_moves_the_window_and_is_moved_by_it(notebook):
    page, _ = notebook
    page.get_by_role("button", name="abdomen").click()
    handle = page.locator(".noUi-handle")
    slider(page, "level").fill("300")
    page.locator(".noUi-handle[aria-valuenow='300.0']").wait_for()
    handle.press("ArrowLeft")
    page.locator(".window", has_text="L 299.9 W 400 HU").wait_for()
    assert heard(page, "299.")  # or 299.8999999999999: the slider counts in tenths


def test_in_jupyter_a_region_is_a_trait(notebook):
    page, _ = notebook
    page.locator("[data-tool=box]").click()
    page.locator(".stage").press("ArrowRight")
    assert "'kind': 'box'" in heard(page, "kind")
    page.get_by_role("button", name="Clear").click()
    assert heard(page, "None")


def test_in_jupyter_a_drag_of_the_slider_sends_no_pixels(notebook):
    page, line = notebook
    page.get_by_role("button", name="abdomen").click()
    input_ = slider(page, "width")
    input_.scroll_into_view_if_needed()
    box = input_.bounding_box()
    page.wait_for_timeout(500)
    line.clear()
    page.mouse.move(box["x"] + 40, box["y"] + box["height"] / 2)
    page.mouse.down()
    steps = 40
    for step in range(steps):
        page.mouse.move(box["x"] + 40 + 3 * step, box["y"] + box["height"] / 2)
        page.evaluate(FRAMES)
    page.mouse.up()
    page.wait_for_timeout(500)
    width = slider(page, "width").input_value()
    assert int(width) > 1000
    assert text(page) == f"L 50 W {width} HU"
    assert heard(page, f"50.0 {width}.0 ")
    a_picture = SIZE[1] * SIZE[2]  # bytes of one panel, at one a pixel
    assert max((size for _, size in line), default=0) < a_picture
    assert np.array_equal(shown(page), expected(four_panels(), 50, int(width), 1))


def test_in_jupyter_the_viewer_is_accessible_in_the_dark(notebook):
    page, _ = notebook
    page.evaluate(axe_source())
    assert page.evaluate(AXE, ".alden-lite-ctview") == []


TOKEN_CELLS = [
    """import numpy as np
from alden_lite.show.viewer import TokenView
saved, titles = np.load("tokens.npz"), ["low dose", "normal dose"]
scans = {title: saved[title] for title in titles}
layers = {layer: {title: saved[f"{layer} {title}"] for title in titles} for layer in ("block 4", "block 9")}
view = TokenView(scans, features=layers, difference=True, slice=1)
view""",
    """import ipywidgets as widgets
heard = widgets.Label()
def hear(change):
    heard.value = f"{view.token} {view.layer} {view.threshold}"
view.observe(hear, ["token", "layer", "threshold"])
heard""",
    """choose = widgets.Button(description="choose in Python")
@choose.on_click
def chosen(_):
    with view.hold_sync():
        view.token, view.threshold = {"panel": 1, "row": 0, "column": 5}, -0.3
choose""",
]


def test_in_jupyter_a_token_is_chosen_in_the_browser_or_in_python(browser, lab):
    view, saved = token_view(), {"low dose": ct(0), "normal dose": ct(1)}
    for n, layer in enumerate(("block 4", "block 9")):
        saved |= {f"{layer} {title}": maps(10 * n + i, 64 + n) for i, title in enumerate(list(saved)[:2])}
    np.savez(lab[-1] / "tokens.npz", **saved)
    write_notebook(lab[-1] / "tokens.ipynb", TOKEN_CELLS)
    page, line = run_notebook(browser, lab, "tokens.ipynb")
    page.get_by_role("button", name="choose in Python").wait_for()
    page.wait_for_timeout(500)
    line.clear()
    click_token(page, page, 3, 1, panel=1)
    page.get_by_label("Layer").select_option("block 9")
    view.token, view.layer = {"panel": 1, "row": 3, "column": 1}, "block 9"
    assert heard(page, f"{view.token} block 9 0.5")
    assert np.array_equal(overlays(page), expected_overlays(view))
    page.get_by_role("button", name="choose in Python").click()
    view.token, view.threshold = {"panel": 1, "row": 0, "column": 5}, -0.3
    assert heard(page, f"{view.token} block 9 -0.3")
    page.locator(".tokens p", has_text="Token row 0 column 5 of normal dose").wait_for()
    assert np.array_equal(overlays(page), expected_overlays(view))
    page.locator(".stage").press("Escape")
    assert heard(page, "None block 9 -0.3")
    assert max(size for _, size in line) < len(view._features) / 2  # features went over once, before
    page.evaluate(axe_source())
    assert page.evaluate(AXE, ".alden-lite-ctview") == []
    page.close()


def test_chapter_01_runs_in_jupyter_and_its_viewer_shows_what_python_says(browser, lab):
    address, token, work = lab
    shutil.copy(
        Path(__file__).parents[2] / "notebooks" / "01_ct_numbers_and_windows.ipynb", work / "01.ipynb"
    )
    page = browser.new_page(viewport=TALL)
    page.set_default_timeout(2 * LONGEST_MS)
    page.goto(f"{address}/doc/tree/01.ipynb?token={token}&reset", wait_until="domcontentloaded")
    idle = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status == 'idle'"
    page.wait_for_function(idle)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    done = """() => window.jupyterapp.shell.currentWidget.content.widgets
        .filter(cell => cell.model.type == 'code').every(cell => cell.model.executionCount)"""
    page.wait_for_function(done)
    wrong = """() => window.jupyterapp.shell.currentWidget.content.widgets
        .filter(cell => cell.model.type == 'code').flatMap(cell => cell.model.outputs.toJSON())
        .filter(output => output.output_type == 'error')"""
    assert page.evaluate(wrong) == []
    to_the_viewer = """() => { const all = window.jupyterapp.shell.currentWidget.content;
        const source = cell => cell.model.sharedModel.getSource();
        const at = all.widgets.findIndex(cell => source(cell).includes('viewer.CTView('));
        return all.scrollToItem(at, 'center') }"""  # JupyterLab draws only what is near
    page.evaluate(to_the_viewer)
    page.locator(".alden-lite-ctview .window").wait_for()
    chest = load_sample().hu[94]
    page.get_by_role("button", name="lung").click()
    slider(page, "level").fill("-500")
    page.locator(".alden-lite-ctview .window", has_text="L −500 W 1500 HU").wait_for()
    page.evaluate(FRAMES)
    (seen,) = shown(page)
    assert np.array_equal(seen[..., 0], grey_levels(chest, -500, 1500))
    page.close()
