"""How long from a step of the slider to the new picture? CTView beside ways that ask the kernel.

    python benchmarks/viewer.py [--steps 60]
    pip install playwright; playwright install chromium       (or name a Chromium in ALDEN_LITE_CHROMIUM)
    pip install ipyniivue                                     (optional: adds a row)

A real JupyterLab on this machine, a real browser without graphics card, a mouse that drags the slider of the
window's width over a slice of 512 x 512. A step begins when the page hears of the mouse's move and ends when
the frame with the new picture is finished: a canvas was filled, or an image was loaded, and the browser has
painted. Bytes are what goes between browser and kernel, both ways, while the slider is dragged.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import numpy as np

from alden_lite.data.sample import load_sample

SLICE = 28  # of the sample volume: the upper abdomen
LONGEST_MS = 60_000

WATCH = """
(() => {
  let [armed, start, inFrame] = [false, 0, false];
  const finished = () => {
    if (!armed || !start) return;
    armed = false;
    const painted = () => {  // a message is heard after the frame that is being made
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => { window.stepMs = performance.now() - start; };
      port2.postMessage(0);
    };
    inFrame ? painted() : frame(painted);
  };
  const frame = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = callback => frame(time => {
    inFrame = true;
    try { callback(time); } finally { inFrame = false; }
  });
  for (const name of ["pointermove", "mousemove"]) {
    window.addEventListener(name, () => { start ||= performance.now(); }, true);
  }
  document.addEventListener("load", event => event.target.tagName === "IMG" && finished(), true);
  const watch = (kind, names) => names.forEach(name => {
    const original = kind.prototype[name];
    kind.prototype[name] = function (...values) {
      const result = original.apply(this, values);
      finished();
      return result;
    };
  });
  watch(CanvasRenderingContext2D, ["putImageData"]);
  watch(WebGL2RenderingContext, ["drawArrays", "drawElements"]);
  const image = Object.getOwnPropertyDescriptor(HTMLImageElement.prototype, "src");
  Object.defineProperty(HTMLImageElement.prototype, "src", { ...image, set(source) {
    this.addEventListener("load", finished, { once: true });
    image.set.call(this, source);
  } });
  window.arm = () => { [armed, start, window.stepMs] = [true, 0, null]; };
})();
"""

START = "import numpy as np\nhu = np.load('hu.npy')\n"


@dataclass(frozen=True)
class Way:
    """One way to put a slice in a window: a cell of a notebook, and how to find its slider."""

    name: str
    cell: str
    slider: str  # CSS selector of what is dragged along
    needs: str | None = None  # a package


CTVIEW = ".slider[data-trait=width] input"
WAYS = {
    "ctview_1": Way("CTView, 1 panel", "from alden_lite.show import CTView\nCTView(hu, width=1500)", CTVIEW),
    "ctview_4": Way(
        "CTView, 4 panels",
        "from alden_lite.show import CTView\n"
        "CTView({name: hu + n for n, name in enumerate('abcd')}, width=1500)",
        CTVIEW,
    ),
    "interact": Way(
        "interact + matplotlib",
        """import matplotlib.pyplot as plt
from ipywidgets import IntSlider, interact
def show(width):
    plt.figure(figsize=(5.12, 5.12))
    plt.imshow(hu, cmap="gray", vmin=40 - width / 2, vmax=40 + width / 2)
    plt.axis("off")
    plt.show()
interact(show, width=IntSlider(1500, 1, 4096));""",
        ".noUi-base",
    ),
    "image": Way(
        "widgets.Image, PNG by Pillow",
        """import io
import ipywidgets as widgets
from PIL import Image
from alden_lite.physics.hounsfield import grey_levels
slider, picture = widgets.IntSlider(1500, 1, 4096), widgets.Image(format="png")
def redraw(_=None):
    png = io.BytesIO()
    Image.fromarray(grey_levels(hu, 40, slider.value)).save(png, format="png", compress_level=1)
    picture.value = png.getvalue()
redraw()
slider.observe(redraw, "value")
widgets.VBox([slider, picture])""",
        ".noUi-base",
    ),
    "ipyniivue": Way(
        "ipyniivue, WebGL in software",
        """import ipywidgets as widgets, nibabel
from ipyniivue import NiiVue
nibabel.save(nibabel.Nifti1Image(hu[::-1].T[..., None].copy(), np.eye(4)), "hu.nii.gz")
viewer = NiiVue(height=512)
viewer.load_volumes([{"path": "hu.nii.gz"}])
width = widgets.IntSlider(1500, 1, 4096)
widgets.jslink((width, "value"), (viewer.volumes[0], "cal_max"))
widgets.VBox([width, viewer])""",
        ".noUi-base",
        needs="ipyniivue",
    ),
}


def main() -> None:
    """Print one table and, as the last line, its figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=60, help="steps of each slider")
    steps = parser.parse_args().steps
    if steps < 20:
        parser.error("--steps must be at least 20: a 95th percentile needs them")
    try:
        from playwright.sync_api import TimeoutError, sync_playwright
    except ModuleNotFoundError:
        sys.exit("this benchmark needs a browser: pip install playwright; playwright install chromium")
    print("| way | p50 ms | p95 ms | bytes a step between browser and kernel |")
    print("|---|---|---|---|")
    results: dict[str, tuple[float, float, float]] = {}
    with jupyter() as (address, work), sync_playwright() as playwright:
        found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
        path = os.environ.get("ALDEN_LITE_CHROMIUM") or next((path for path in found if path), None)
        browser = playwright.chromium.launch(executable_path=path, args=["--disable-quic"])
        np.save(work / "hu.npy", load_sample().hu[SLICE])
        for key, way in WAYS.items():
            if way.needs and find_spec(way.needs) is None:
                print(f"| {way.name} | not installed | | |")
                continue
            try:
                milliseconds, size = measure(browser, address, work, key, way, steps)
            except TimeoutError:
                if not way.needs:
                    raise
                print(f"| {way.name} | no picture within {LONGEST_MS // 1000} s | | |")
                continue
            p50, p95 = np.percentile(milliseconds, [50, 95])
            results[key] = (float(p50), float(p95), size)
            print(f"| {way.name} | {p50:.1f} | {p95:.1f} | {size:.0f} |", flush=True)
        browser.close()
    print("\nA frame lasts 16.7 ms. CTView's kernel hears of the new window once the hand rests.\n")
    figures = {
        "p95_ms_1_panel": results["ctview_1"][1],
        "p95_ms_4_panels": results["ctview_4"][1],
        "speedup_vs_interact": results["interact"][0] / results["ctview_1"][0],
        "speedup_vs_interact_p95": results["interact"][1] / results["ctview_1"][1],
        "bytes_a_step": results["ctview_1"][2],
    }
    print(json.dumps({name: round(value, 1) for name, value in figures.items()}))


def measure(
    browser: Any, address: str, work: Path, key: str, way: Way, steps: int
) -> tuple[list[float], float]:
    """Milliseconds of each step, and bytes a step, of one way in a notebook of its own."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(START + way.cell)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, work / f"{key}.ipynb")
    page = browser.new_page(viewport={"width": 1200, "height": 1400})
    page.set_default_timeout(LONGEST_MS)
    page.add_init_script(WATCH)
    sizes: list[int] = []
    page.on(
        "websocket", lambda line: [line.on(event, lambda data: sizes.append(len(data))) for event in EVENTS]
    )
    page.goto(address.format(f"{key}.ipynb"), wait_until="domcontentloaded")
    kernel = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel"
    page.wait_for_function(f"{kernel}?.status == 'idle'")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    slider = page.locator(way.slider).first
    slider.wait_for()
    page.wait_for_timeout(4000)
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    y, middle = box["y"] + box["height"] / 2, box["x"] + box["width"] * 1500 / 4096
    page.mouse.move(middle, y)
    page.mouse.down()
    milliseconds = []
    for step in range(-10, steps):  # the first ten warm up
        if step == 0:
            sizes.clear()
        page.evaluate("arm()")
        page.mouse.move(middle + 3 * (step % 20), y)
        page.wait_for_function("window.stepMs !== null", polling=20)
        milliseconds.append(float(page.evaluate("window.stepMs")))
        page.wait_for_timeout(30)  # a hand is not faster
    dragged = sum(sizes) / steps
    page.close()
    return milliseconds[10:], dragged


EVENTS = ("framesent", "framereceived")


@contextmanager
def jupyter() -> Iterator[tuple[str, Path]]:
    """A JupyterLab without anybody's settings: address, with a place for a notebook's name, and folder."""
    with tempfile.TemporaryDirectory() as name:
        folder, work = Path(name), Path(name) / "work"
        news = folder / "settings" / "@jupyterlab" / "apputils-extension"
        for made in (work, news):
            made.mkdir(parents=True)
        (news / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}', encoding="utf-8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        token = secrets.token_hex(16)
        variables = {
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "IPYTHONDIR": "ipython",
        }
        environment = os.environ | {name: str(folder / place) for name, place in variables.items()}
        options = [
            *("--no-browser", "--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={token}"),
            *("--LabApp.expose_app_in_browser=True", "--allow-root", f"--notebook-dir={work}"),
        ]
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", "jupyter", "lab", *options], env=environment, stdout=log, stderr=log
            )
        try:
            wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", server)
            yield f"http://127.0.0.1:{port}/doc/tree/{{}}?token={token}&reset", work
        finally:
            server.terminate()
            server.wait(timeout=30)


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    """Until the server answers; a server that ends, or says nothing for a minute, is an error."""
    for _ in range(240):
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.25)
    sys.exit("JupyterLab did not start: try `python -m jupyter lab`")


if __name__ == "__main__":
    main()
