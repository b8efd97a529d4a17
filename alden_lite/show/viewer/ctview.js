// CTView: CT slices in a window of HU, in the browser. Used by ctview.py; taught in chapter 01.
//
// One ES module without dependencies. Whole HU come in once, as int16; from then on the browser draws
// everything by itself, from a table with one grey for each HU. Two hosts: Jupyter, through anywidget (`render`),
// and a static page (`showStatic`). Both get the same state, whose names are the traits of ctview.py.
//
// Coordinates: (x, y) in pixels of the slice; pixel i reaches from i to i + 1, its centre is i + 0.5.
//
// tokenview.js is put behind this file to make a viewer with one tool and one layer more.

// 1. Arithmetic. Pure functions; ctview.py has the same ones in Python, and a test compares the two.

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** 8-bit grey of a HU, as `grey_levels` in hounsfield.py: the same operations in the same order, in doubles. */
export function greyLevel(hu, level, width) {
  return Math.floor(255 * clamp((hu - level) / width + 0.5, 0, 1) + 0.5);
}

/** Write the opaque grey of each HU from `low` to `high` into `table`, at the place of its 16 bits. */
export function fillGreyTable(table, low, high, level, width) {
  for (let hu = low; hu <= high; hu++) {
    table[hu & 0xffff] = 0xff000000 | (greyLevel(hu, level, width) * 0x010101);
  }
}

/** Pixels of a slice (Int16Array) by table. */
export function paintGrey(pixels, hu, table) {
  const places = new Uint16Array(hu.buffer, hu.byteOffset, hu.length);
  for (let i = 0; i < places.length; i++) pixels[i] = table[places[i]];
}

/** Pixels of a difference in HU: 255 colours from -limit to +limit, as `difference_colours` in ctview.py. */
export function paintDifference(pixels, hu, limit, colours) {
  const middle = (colours.length - 1) / 2;
  for (let i = 0; i < hu.length; i++) {
    const step = Math.floor(middle * Math.min(Math.abs(hu[i]) / limit, 1) + 0.5);
    pixels[i] = colours[hu[i] < 0 ? middle - step : middle + step];
  }
}

/** Rows [y0, y1) and, row by row, columns [x0, x1) of the pixels whose centres lie in a region. */
export function regionRows(roi, columns, rows) {
  const spans = [];
  const [top, bottom] = roi.kind === "box" ? [roi.y0, roi.y1] : [Math.floor(roi.y - roi.r), roi.y + roi.r];
  for (let y = Math.max(Math.ceil(top), 0); y < Math.min(bottom, rows); y++) {
    let [x0, x1] = [Math.ceil(roi.x0), Math.ceil(roi.x1)];
    if (roi.kind === "circle") {
      const inside = (x) => (x + 0.5 - roi.x) ** 2 + (y + 0.5 - roi.y) ** 2 <= roi.r ** 2;
      [x0, x1] = [Math.floor(roi.x - roi.r), Math.ceil(roi.x + roi.r)];
      while (x0 < x1 && !inside(x0)) x0++;
      while (x1 > x0 && !inside(x1 - 1)) x1--;
    }
    [x0, x1] = [Math.max(x0, 0), Math.min(x1, columns)];
    if (x0 < x1) spans.push([y, x0, x1]);
  }
  return spans;
}

/** Number of pixels, mean and standard deviation (of the pixels, not an estimate) in a region. */
export function regionStatistics(hu, columns, rows, roi) {
  let [count, sum, squares] = [0, 0, 0]; // of whole numbers: exact
  for (const [y, x0, x1] of regionRows(roi, columns, rows)) {
    for (let i = y * columns + x0; i < y * columns + x1; i++) {
      count += 1;
      sum += hu[i];
      squares += hu[i] * hu[i];
    }
  }
  const mean = sum / count;
  return { count, mean, deviation: Math.sqrt(Math.max(squares / count - mean * mean, 0)) };
}

/** HU along a line, one sample a pixel, bilinear between the centres of pixels. */
export function profileOf(hu, columns, rows, line) {
  const steps = Math.max(1, Math.ceil(Math.hypot(line.x1 - line.x0, line.y1 - line.y0)));
  return Float64Array.from({ length: steps + 1 }, (_, i) => {
    const x = clamp(line.x0 + ((line.x1 - line.x0) * i) / steps - 0.5, 0, columns - 1);
    const y = clamp(line.y0 + ((line.y1 - line.y0) * i) / steps - 0.5, 0, rows - 1);
    const [left, top] = [Math.floor(x), Math.floor(y)];
    const [right, low] = [Math.min(left + 1, columns - 1), Math.min(top + 1, rows - 1)];
    const along = (row) => hu[row * columns + left] * (1 - x + left) + hu[row * columns + right] * (x - left);
    return along(top) * (1 - y + top) + along(low) * (y - top);
  });
}

/** Largest of 1, 2, 5, 10, 20, 50, ... that is not above `limit`. */
export function roundLength(limit) {
  const power = 10 ** Math.floor(Math.log10(limit));
  return power * [5, 2, 1].find((digit) => digit * power <= limit);
}

/** Columns, and width of a panel, at which `count` panels in a given space are largest; full rows preferred. */
export function bestGrid(count, shape, width, height, gap, caption) {
  let best = { score: -1 };
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const tallest = (height - gap * (rows - 1)) / rows - caption;
    const panel = Math.floor(Math.min((width - gap * (columns - 1)) / columns, tallest * shape));
    const score = panel * (columns * rows === count ? 1 : 0.85);
    if (score > best.score) best = { score, columns, panel: Math.max(panel, 60) };
  }
  return best;
}

/** "40" or "40.25": a number as people write it, with a real minus sign. */
export function words(number, digits = 2) {
  return String(Number(number.toFixed(digits))).replace("-", "−");
}

// 2. Looks. Jupyter's colours where there are any, else our own, light or dark as the system asks.

const GAP = 8; // pixels between panels
const CAPTION = 24; // pixels of a panel's title
const CURVES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]; // Okabe and Ito: apart in every colour blindness
const DASHES = ["none", "7 3", "2 3", "8 3 2 3"];
const LABELS = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"];

const STYLE = `
:host { --ink: var(--jp-ui-font-color1, #1b1d20); --paper: var(--jp-layout-color1, #ffffff);
  --line: var(--jp-border-color1, #8b9097); --accent: var(--jp-brand-color1, #0b63b5);
  --on-accent: var(--jp-layout-color1, #ffffff); display: block; }
@media (prefers-color-scheme: dark) { :host { --ink: var(--jp-ui-font-color1, #e8eaed);
  --paper: var(--jp-layout-color1, #16181b); --line: var(--jp-border-color1, #7b8188);
  --accent: var(--jp-brand-color1, #7db8f5); --on-accent: var(--jp-layout-color1, #10151b); } }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
.root { color: var(--ink); background: var(--paper); padding: 8px; line-height: 1.4;
  font: 0.875rem/1.4 var(--jp-ui-font-family, system-ui, sans-serif); font-variant-numeric: tabular-nums;
  container-type: inline-size; }
.fill { min-height: 100vh; }
.stage { display: flex; flex-wrap: wrap; gap: ${GAP}px; justify-content: center; align-content: flex-start;
  border-radius: 3px; }
.panel { margin: 0; }
.caption { height: ${CAPTION}px; overflow: hidden; white-space: nowrap; text-overflow: ellipsis; font-weight: 600; }
.box { position: relative; overflow: hidden; background: #000; touch-action: none; cursor: crosshair;
  user-select: none; -webkit-user-select: none; }
.picture { position: absolute; inset: 0; transform-origin: 0 0; }
.picture canvas { position: absolute; inset: 0; width: 100%; height: 100%; }
.picture.coarse canvas { image-rendering: pixelated; }
.marks { position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none; overflow: hidden; }
.marks text { fill: #fff; stroke: #000; stroke-width: 3px; paint-order: stroke; font-size: 0.75rem; }
.status { min-height: 1.4em; margin: 4px 0; display: flex; flex-wrap: wrap; gap: 0 1em;
  justify-content: space-between; }
.window { font-size: 1.0625rem; font-weight: 600; white-space: nowrap; margin-left: auto; }
.sliders { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: 2px 24px; }
.slider { display: grid; grid-template-columns: 5.5em minmax(6em, 1fr) 5.2em; align-items: center; gap: 8px; }
.slider output { text-align: right; white-space: nowrap; }
input[type=range] { width: 100%; min-width: 0; height: 24px; margin: 0; accent-color: var(--accent); }
.bar { display: flex; flex-wrap: wrap; gap: 4px; align-items: center; margin-top: 6px; }
.bar > span { min-width: 5.5em; }
.apart { margin-left: 12px; }
button, select { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--line);
  border-radius: 4px; padding: 2px 8px; min-height: 28px; cursor: pointer; }
button[aria-pressed=true] { background: var(--accent); color: var(--on-accent); border-color: var(--accent); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; max-height: 7.5em; overflow: auto; margin-top: 4px; }
.legend label { display: inline-flex; gap: 5px; align-items: center; }
.swatch { width: 14px; height: 14px; border: 1px solid var(--ink); border-radius: 2px; }
.results p { margin: 6px 0 0; }
.chart { display: block; width: 100%; height: 170px; margin-top: 6px; }
.chart text { fill: var(--ink); font-size: 0.75rem; }
.fine { margin-top: 6px; font-size: 0.8125rem; }
.fine ul { margin: 4px 0; padding-left: 1.4em; }
.fine summary { cursor: pointer; }
.foot { display: flex; flex-wrap: wrap; gap: 0 1.5em; justify-content: space-between; align-items: baseline; }
.quiet { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (pointer: coarse) { button, select { min-height: 40px; } input[type=range] { height: 34px; } }
@container (max-width: 30rem) { .bar { flex-wrap: nowrap; overflow-x: auto; padding: 4px; margin: 2px -4px 0; }
  .bar > * { flex: none; } .bar > span { display: none; } .apart { margin-left: 0; } }
`;

const TOOLS = {
  window: ["Window", "Drag right for a wider window, up for a higher level"],
  pan: ["Pan", "Drag the enlarged picture"],
  probe: ["Probe", "Click a pixel to keep its HU in view"],
  box: ["Box", "Drag a rectangle: mean and standard deviation"],
  circle: ["Circle", "Drag from the centre: mean and standard deviation"],
  profile: ["Profile", "Drag a line: HU along it"],
};

const HELP = [
  "Drag on the picture: right for a wider window, up for a higher level. Other tools: choose above.",
  "Wheel: slices. Ctrl and wheel, or two fingers: zoom. Shift and drag: pan. Double click: whole picture.",
  "Keys, once the picture is clicked or reached by Tab: arrows do what the tool does (Shift: larger steps), " +
    "g and s make a box or circle grow and shrink, Page Up and Page Down change the slice, + and − zoom, " +
    "0 shows the whole picture, 1 to 8 choose a window, Escape removes marks.",
];

/** An element with attributes and children. Text goes in as text, never as HTML. */
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "line", "rect", "circle", "text", "polyline", "g"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const button = (name, title, onclick, more = {}) => make("button", { type: "button", title, onclick, ...more }, name);

/** A shape in yellow on black, which is seen on any grey. */
const outlined = (tag, shape) => [make(tag, { ...shape, fill: "none", stroke: "#000", "stroke-width": 4 }),
  make(tag, { ...shape, fill: "none", stroke: "#ffe14d", "stroke-width": 2 })];

/** A row of buttons with a name. */
const bar = (name, ...children) =>
  make("div", { class: "bar", role: "group", "aria-label": name }, make("span", {}, name), ...children);

// 3. The viewer.

const WATCHED = ["level", "width", "slice", "roi", "line", "probe", "difference_hu", "opacity", "hidden_labels"];

class Viewer {
  constructor(model, element) {
    this.model = model;
    this.facts = model.get("_facts"); // sizes, titles, spacing, presets: never changes
    [this.depth, this.rows, this.columns] = this.facts.shape;
    this.view = { scale: 1, x: 0, y: 0 }; // of all panels, in parts of a panel
    this.hover = null; // pixel below the pointer
    this.wipe = null; // or {left, right, at}: numbers of two panels, and the curtain's place from 0 to 1
    this.pointers = new Map(); // those that are down: where they are on the page
    this.pinched = null; // how two of them began, while there are two
    this.updates = []; // functions that bring sliders and boxes up to date
    this.dirty = new Set(["slice"]);
    this.readPixels();
    this.build(element);
    this.listen();
    this.layOut();
  }

  // What a viewer built on this one adds to: traits that change the picture, tools, tools that a click uses, help.

  get watched() {
    return WATCHED;
  }

  get tools() {
    return TOOLS; // the first one is chosen
  }

  get clickTools() {
    return ["probe"];
  }

  get help() {
    return HELP;
  }

  get(name) {
    return this.model.get(name);
  }

  /** Change traits: the picture at once; the kernel hears of the new values when the hand rests. */
  set(changes) {
    for (const [name, value] of Object.entries(changes)) this.model.set(name, value);
    clearTimeout(this.saving);
    this.saving = setTimeout(() => this.model.save_changes(), 150);
  }

  readPixels() {
    const size = this.rows * this.columns;
    const hu = new Int16Array(aligned(this.get("_hu")));
    const labels = new Uint8Array(aligned(this.get("_labels")));
    [this.lowest, this.highest] = [hu[0], hu[0]];
    for (const value of hu) {
      if (value < this.lowest) this.lowest = value;
      else if (value > this.highest) this.highest = value;
    }
    this.table = new Uint32Array(65536);
    this.colours = Uint32Array.from(this.facts.colours, ([r, g, b]) => 0xff000000 | (b << 16) | (g << 8) | r);
    this.panels = this.facts.titles.map((title, number) => ({
      title,
      load: (z) => hu.subarray((number * this.depth + z) * size, (number * this.depth + z + 1) * size),
    }));
    const difference = this.facts.difference;
    if (difference) {
      const [first, second] = difference.of.map((number) => this.panels[number]);
      const values = new Int32Array(size);
      const load = (z) => {
        const [a, b] = [first.load(z), second.load(z)];
        for (let i = 0; i < size; i++) values[i] = a[i] - b[i];
        return values;
      };
      this.panels.push({ title: difference.title, load, difference: true });
    }
    this.loadLabels = labels.length ? (z) => labels.subarray(z * size, (z + 1) * size) : null;
    const seen = new Uint8Array(256);
    for (const id of labels) seen[id] = 1;
    const ids = [...seen.keys()].filter((id) => id > 0 && seen[id]);
    this.labelColours = new Map(ids.map((id, order) => [id, labelColour(order)]));
  }

  // 3a. Building the page.

  build(element) {
    const host = make("div", { class: "alden-lite-ctview", "data-lm-suppress-shortcuts": "true" }); // from JupyterLab
    const shadow = host.attachShadow({ mode: "open" });
    this.host = host;
    this.stage = make("div", { class: "stage", tabindex: 0, role: "application", "aria-label": this.facts.name,
      "aria-describedby": "help" });
    this.panels.forEach((panel) => this.buildPanel(panel));
    this.stage.append(...this.panels.map((panel) => panel.figure));
    this.probeText = make("span");
    this.windowText = make("output", { class: "window", "aria-live": "off" });
    this.spoken = make("div", { class: "quiet", "aria-live": "polite" });
    this.results = make("div", { class: "results" });
    this.root = make("div", { class: this.facts.fill ? "root fill" : "root" },
      this.stage,
      make("div", { class: "status" }, this.probeText, this.windowText),
      this.buildSliders(),
      this.buildPresets(),
      this.buildToolbar(),
      this.buildWipe(),
      this.buildLegend(),
      this.results,
      this.buildFoot(),
      this.spoken);
    shadow.append(make("style", {}, STYLE), this.root);
    element.append(host);
    this.followTheme();
  }

  buildPanel(panel) {
    const size = { width: this.columns, height: this.rows };
    panel.canvas = make("canvas", { ...size, role: "img", "aria-label": panel.title });
    panel.context = panel.canvas.getContext("2d");
    panel.image = panel.context.createImageData(this.columns, this.rows);
    panel.pixels = new Uint32Array(panel.image.data.buffer);
    panel.labels = make("canvas", { ...size, "aria-hidden": "true" });
    panel.picture = make("div", { class: "picture" }, panel.canvas, panel.labels);
    panel.marks = make("svg", { class: "marks", "aria-hidden": "true" });
    panel.box = make("div", { class: "box" }, panel.picture, panel.marks);
    panel.caption = make("div", { class: "caption", title: panel.title }, panel.title);
    panel.figure = make("div", { class: "panel" }, panel.caption, panel.box);
    const on = (name, handler) => panel.box.addEventListener(name, (event) => handler.call(this, event, panel));
    on("pointerdown", this.pointerDown);
    on("pointermove", this.pointerMove);
    on("pointerup", this.pointerUp);
    on("pointercancel", this.pointerUp);
    on("pointerleave", this.pointerLeave);
    on("dblclick", this.wholePicture);
    panel.box.addEventListener("wheel", (event) => this.wheel(event, panel), { passive: false });
  }

  buildSliders() {
    const at = (z) => `${z + this.facts.first_slice} (${z + 1} of ${this.depth})`;
    const sliders = [
      this.slider("slice", "Slice", 0, this.depth - 1, at, (z) => String(z + this.facts.first_slice)),
      this.slider("level", "Level", -1024, 3072, (hu) => `${words(hu)} HU`),
      this.slider("width", "Width", 1, 4096, (hu) => `${words(hu)} HU`),
      this.slider("difference_hu", "Difference", 1, 1000, (hu) => `± ${words(hu)} HU`),
    ];
    sliders[0].hidden = this.depth === 1;
    sliders[3].hidden = !this.facts.difference;
    return make("div", {}, sliders[0], make("div", { class: "sliders" }, ...sliders.slice(1)));
  }

  /** A labelled native slider for one trait. `spoken` says its value to a screen reader, `shown` to the eye. */
  slider(trait, label, min, max, spoken, shown = spoken, step = 1) {
    const name = ["level", "width", "difference_hu"].includes(trait) ? `${label} in HU` : label;
    const input = make("input", { type: "range", min, max, step, "aria-label": name,
      oninput: () => this.set({ [trait]: Number(input.value) }) });
    const output = make("output", { "aria-live": "off" });
    this.updates.push(() => {
      const value = this.get(trait);
      input.value = value;
      input.setAttribute("aria-valuetext", spoken(value));
      output.textContent = shown(value);
    });
    return make("label", { class: "slider", "data-trait": trait }, make("span", {}, label), input, output);
  }

  buildPresets() {
    this.presets = Object.entries(this.facts.presets).map(([name, [level, width]], i) => {
      const title = `L ${words(level)} W ${words(width)} HU, key ${i + 1}`;
      return { level, width, button: button(name, title, () => this.set({ level, width })) };
    });
    return bar("Windows", ...this.presets.map((preset) => preset.button));
  }

  buildToolbar() {
    this.toolButtons = Object.entries(this.tools).map(([tool, [name, title]]) =>
      button(name, title, () => this.choose(tool), { "data-tool": tool }));
    this.wipeButton = button("Wipe", "Two panels in one, with a curtain between them", () => this.toggleWipe(),
      { class: "apart", "data-tool": "wipe", "aria-pressed": "false" });
    this.wipeButton.hidden = this.panels.length === 1;
    return bar("Tools", ...this.toolButtons, this.wipeButton,
      button("Reset view", "Whole picture, key 0", () => this.wholePicture(), { class: "apart" }),
      button("Clear", "Remove marks, key Escape", () => this.clear()));
  }

  buildWipe() {
    const [left, right] = [["left", "Left of the curtain"], ["right", "Right of the curtain"]].map(([side, name]) => {
      const select = make("select", { "aria-label": name, onchange: () => {
        this.wipe = { ...this.wipe, [side]: Number(select.value) };
        this.layOut();
      } }, ...this.panels.map((panel, number) => make("option", { value: number }, panel.title)));
      return select;
    });
    this.curtain = make("input", { type: "range", min: 0, max: 100, step: 1, style: "flex: 1 1 8em",
      "aria-label": "Curtain", oninput: () => this.moveCurtain(Number(this.curtain.value) / 100) });
    [this.wipeLeft, this.wipeRight, this.wipeBar] = [left, right, bar("Curtain", left, this.curtain, right)];
    this.wipeBar.hidden = true;
    return this.wipeBar;
  }

  buildLegend() {
    const entries = [...this.labelColours].map(([id, colour]) => {
      const show = make("input", { type: "checkbox", onchange: () => {
        const hidden = this.get("hidden_labels").filter((other) => other !== id);
        this.set({ hidden_labels: show.checked ? hidden : [...hidden, id] });
      } });
      this.updates.push(() => { show.checked = !this.get("hidden_labels").includes(id); });
      const swatch = make("span", { class: "swatch", style: `background: rgb(${colour.join(" ")})` });
      return make("label", {}, show, swatch, this.nameOf(id));
    });
    const percent = (part) => `${Math.round(100 * part)} %`;
    const opacity = this.slider("opacity", "Labels", 0, 1, percent, percent, 0.05);
    opacity.style.maxWidth = "26rem";
    const names = make("div", { class: "legend", role: "group", "aria-label": "Labels" }, ...entries);
    const legend = make("div", {}, opacity, names);
    legend.hidden = entries.length === 0;
    return legend;
  }

  buildFoot() {
    const help = make("div", { id: "help" }, make("ul", {}, ...this.help.map((line) => make("li", {}, line))));
    return make("div", { class: "fine foot" },
      make("details", {}, make("summary", {}, "Mouse, touch and keys"), help),
      make("span", {}, this.facts.note), make("span", {}, "Not for clinical use"));
  }

  /** Native sliders and lists in the colours of the page around us. */
  followTheme() {
    const follow = () => {
      const light = document.body.dataset.jpThemeLight;
      this.host.style.colorScheme = light === undefined ? "light dark" : light === "true" ? "light" : "dark";
    };
    this.theme = new MutationObserver(follow);
    this.theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
    follow();
  }

  listen() {
    this.changed = Object.fromEntries(this.watched.map((name) => [name, () => this.invalidate(name)]));
    for (const name of this.watched) this.model.on(`change:${name}`, this.changed[name]);
    this.stage.addEventListener("keydown", (event) => this.key(event));
    this.resized = new ResizeObserver(() => this.layOut());
    for (const part of this.root.children) this.resized.observe(part);
    this.choose(Object.keys(this.tools)[0]);
  }

  remove() {
    for (const name of this.watched) this.model.off(`change:${name}`, this.changed[name]);
    clearTimeout(this.saving);
    this.model.save_changes();
    clearTimeout(this.speaking);
    cancelAnimationFrame(this.frame);
    this.resized.disconnect();
    this.theme.disconnect();
    this.host.remove();
  }

  // 3b. Drawing: at most once a frame, and only what has changed.

  invalidate(what) {
    this.dirty.add(what);
    this.frame ??= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = undefined;
    const dirty = (...names) => names.some((name) => this.dirty.has(name));
    const z = clamp(this.get("slice"), 0, this.depth - 1);
    if (dirty("slice")) for (const panel of this.panels) panel.hu = panel.load(z);
    if (dirty("slice", "level", "width")) {
      fillGreyTable(this.table, this.lowest, this.highest, this.get("level"), this.get("width"));
    }
    for (const panel of this.panels) {
      if (panel.difference && dirty("slice", "difference_hu")) {
        paintDifference(panel.pixels, panel.hu, this.get("difference_hu"), this.colours);
      } else if (!panel.difference && dirty("slice", "level", "width")) {
        paintGrey(panel.pixels, panel.hu, this.table);
      } else continue;
      panel.context.putImageData(panel.image, 0, 0);
    }
    if (this.loadLabels && dirty("slice", "hidden_labels")) this.paintLabels(this.loadLabels(z));
    if (dirty("view", "layout", "wipe")) this.place();
    for (const panel of this.panels) {
      panel.labels.style.opacity = this.get("opacity");
      if (!panel.figure.hidden) this.drawMarks(panel);
    }
    if (dirty("slice", "roi", "line", "layout")) this.showResults();
    this.dirty.clear();
    this.showTexts(z);
  }

  paintLabels(ids) {
    this.labelIds = ids;
    const shown = new Uint32Array(256);
    for (const [id, [r, g, b]] of this.labelColours) {
      if (!this.get("hidden_labels").includes(id)) shown[id] = 0xff000000 | (b << 16) | (g << 8) | r;
    }
    const image = new ImageData(this.columns, this.rows);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < ids.length; i++) pixels[i] = shown[ids[i]];
    for (const panel of this.panels) panel.labels.getContext("2d").putImageData(image, 0, 0);
  }

  /** Sizes of the panels for the space there is. */
  layOut() {
    const [rowMm, columnMm] = this.facts.spacing_mm ?? [1, 1];
    const shape = (this.columns * columnMm) / (this.rows * rowMm);
    const count = this.wipe ? 1 : this.panels.length;
    const wide = this.stage.clientWidth;
    if (!wide || this.pointers.size) return; // not on the page yet, or something is drawn: later
    const others = [...this.root.children].filter((part) => part !== this.stage && part !== this.spoken);
    const below = others.reduce((sum, part) => sum + part.offsetHeight, 40);
    const height = this.facts.fill ? window.innerHeight - below : 0.6 * window.innerHeight;
    const { panel: side } = bestGrid(count, shape, wide, Math.max(height, 220), GAP, CAPTION);
    const before = this.laidOut;
    if (before && side === this.side && before.wipe === this.wipe && before.wide === wide) return;
    this.laidOut = { wipe: this.wipe, wide };
    this.panels.forEach((panel, number) => {
      panel.figure.hidden = this.wipe !== null && number !== this.wipe.left;
      panel.figure.style.width = `${side}px`;
      panel.box.style.height = `${Math.round(side / shape)}px`;
      const wiped = this.wipe?.left === number ? this.panels[this.wipe.right] : null;
      panel.caption.textContent = wiped ? `${panel.title} | ${wiped.title}` : panel.title;
    });
    [this.side, this.tall] = [side, Math.round(side / shape)];
    this.invalidate("layout");
  }

  /** Zoom, pan and curtain: by CSS, so the pixels of a canvas are always those of the slice. */
  place() {
    const { scale, x, y } = this.view;
    const moved = `translate(${x * this.side}px, ${y * this.tall}px) scale(${scale})`;
    for (const [number, panel] of this.panels.entries()) {
      panel.picture.style.transform = moved;
      panel.picture.classList.toggle("coarse", (scale * this.side) / this.columns >= 2);
      const over = this.wipe?.right === number && this.wipe.left !== number;
      const home = over ? this.panels[this.wipe.left] : panel;
      if (panel.canvas.parentNode !== home.picture) home.picture.insertBefore(panel.canvas, home.labels);
      const hidden = over ? clamp((this.wipe.at - x) / scale, 0, 1) : 0;
      panel.canvas.style.clipPath = over ? `inset(0 0 0 ${100 * hidden}%)` : "";
    }
  }

  /** A place in pixels of the slice, on the screen. */
  toScreen(x, y) {
    return [(this.view.x + (this.view.scale * x) / this.columns) * this.side,
      (this.view.y + (this.view.scale * y) / this.rows) * this.tall];
  }

  drawMarks(panel) {
    const marks = [];
    const twice = (tag, shape) => marks.push(...outlined(tag, shape));
    const [roi, line, spot] = [this.get("roi"), this.get("line"), this.hover ?? this.get("probe")];
    const said = (x, y) => marks.push(make("text", { x: clamp(x, 4, this.side - 110), y: clamp(y, 14, this.tall - 6) },
      this.statistics(panel, roi).text));
    if (roi?.kind === "box") {
      const [[x, y], [right, bottom]] = [this.toScreen(roi.x0, roi.y0), this.toScreen(roi.x1, roi.y1)];
      twice("rect", { x, y, width: right - x, height: bottom - y });
      said(x, y - 6);
    } else if (roi?.kind === "circle") {
      const [cx, cy] = this.toScreen(roi.x, roi.y);
      const r = (roi.r * this.view.scale * this.side) / this.columns;
      twice("circle", { cx, cy, r });
      said(cx - r, cy - r - 6);
    }
    if (line) {
      const [[x1, y1], [x2, y2]] = [this.toScreen(line.x0, line.y0), this.toScreen(line.x1, line.y1)];
      twice("line", { x1, y1, x2, y2 });
    }
    if (spot && (this.hover === null || panel !== this.hover.panel)) {
      const [x, y] = this.toScreen(spot.x + 0.5, spot.y + 0.5);
      twice("line", { x1: x - 9, y1: y, x2: x + 9, y2: y });
      twice("line", { x1: x, y1: y - 9, x2: x, y2: y + 9 });
    }
    if (this.wipe) {
      const x = this.wipe.at * this.side;
      twice("line", { x1: x, y1: 0, x2: x, y2: this.tall });
      twice("circle", { cx: x, cy: this.tall / 2, r: 9 });
    }
    if (this.facts.spacing_mm && panel === this.panels.find((other) => !other.figure.hidden)) {
      marks.push(...this.scaleBar());
    }
    panel.marks.replaceChildren(...marks);
  }

  scaleBar() {
    const pixelsPerMm = (this.view.scale * this.side) / this.columns / this.facts.spacing_mm[1];
    const mm = roundLength((0.3 * this.side) / pixelsPerMm);
    const [x1, x2, y] = [12, 12 + mm * pixelsPerMm, this.tall - 12];
    const bar = (colour, size) => make("line", { x1, x2, y1: y, y2: y, stroke: colour, "stroke-width": size });
    const text = mm >= 10 ? `${words(mm / 10)} cm` : `${words(mm)} mm`;
    return [bar("#000", 6), bar("#fff", 3), make("text", { x: x1, y: y - 7 }, text)];
  }

  // 3c. Texts and results.

  nameOf(id) {
    return this.facts.label_names[id] ?? `label ${id}`;
  }

  showTexts(z) {
    const [level, width] = [this.get("level"), this.get("width")];
    this.windowText.textContent = `L ${words(level)} W ${words(width)} HU`;
    for (const update of this.updates) update();
    for (const preset of this.presets) {
      preset.button.setAttribute("aria-pressed", preset.level === level && preset.width === width);
    }
    this.probeText.textContent = this.probeWords(this.hover ?? this.get("probe"), z);
    this.say(this.summary(z));
  }

  /** What a screen reader hears of a picture that has changed. */
  summary(z) {
    const slice = this.depth > 1 ? `slice ${z + this.facts.first_slice}, ` : "";
    return `${slice}${this.windowText.textContent}${this.hover ? "" : `, ${this.probeText.textContent}`}`;
  }

  probeWords(spot, z) {
    if (!spot || !(spot.x >= 0 && spot.x < this.columns && spot.y >= 0 && spot.y < this.rows)) return "";
    const place = spot.y * this.columns + spot.x;
    const values = this.panels.map((panel) => `${panel.title} ${words(panel.hu[place])}`);
    const label = this.loadLabels ? this.labelIds[place] : 0;
    const where = this.depth > 1 ? `(${spot.x}, ${spot.y}, ${z + this.facts.first_slice})` : `(${spot.x}, ${spot.y})`;
    return `${where}: ${values.join(" · ")} HU${label ? ` · ${this.nameOf(label)}` : ""}`;
  }

  /** Tell a screen reader what changed, once things are quiet. */
  say(text) {
    if (text === this.said) return;
    const first = this.said === undefined;
    this.said = text;
    clearTimeout(this.speaking);
    if (!first) this.speaking = setTimeout(() => { this.spoken.textContent = text; }, 500);
  }

  showResults() {
    const [roi, line] = [this.get("roi"), this.get("line")];
    const parts = [];
    if (roi) parts.push(make("p", { class: "region" }, this.regionWords(roi)));
    if (line) parts.push(this.chart(line));
    this.results.replaceChildren(...parts);
  }

  statistics(panel, roi) {
    const { count, mean, deviation } = regionStatistics(panel.hu, this.columns, this.rows, roi);
    const text = count ? `${mean.toFixed(1).replace("-", "−")} ± ${deviation.toFixed(1)} HU` : "no pixel inside";
    return { count, text };
  }

  regionWords(roi) {
    const results = this.panels.map((panel) => ({ title: panel.title, ...this.statistics(panel, roi) }));
    const [dy, dx] = this.facts.spacing_mm ?? [];
    const area = dx ? `, ${words((results[0].count * dx * dy) / 100, 2)} cm²` : "";
    const each = results.map(({ title, text }) => `${title} ${text}`).join(" · ");
    return `Mean ± standard deviation of ${results[0].count} pixels${area}: ${each}`;
  }

  /** HU along the line, one curve a panel. */
  chart(line) {
    const curves = this.panels.map((panel) => profileOf(panel.hu, this.columns, this.rows, line));
    const [dy, dx] = this.facts.spacing_mm ?? [1, 1];
    const length = Math.hypot((line.x1 - line.x0) * dx, (line.y1 - line.y0) * dy);
    const all = curves.flatMap((curve) => [...curve]);
    const [low, high] = [Math.min(...all), Math.max(...all)];
    const [wide, left, right, top, bottom] = [this.root.clientWidth - 16, 54, 12, 24, 146];
    const x = (part) => left + part * (wide - left - right);
    const y = (hu) => bottom - ((hu - low) / (high - low || 1)) * (bottom - top);
    const unit = this.facts.spacing_mm ? " mm" : " px";
    const name = `Profile of ${words(length, 1)}${unit}, ${words(low, 0)} to ${words(high, 0)} HU`;
    const svg = make("svg", { class: "chart", role: "img", "aria-label": name });
    for (const hu of [low, (low + high) / 2, high]) {
      svg.append(make("line", { x1: left, x2: wide - right, y1: y(hu), y2: y(hu), stroke: "currentColor",
        "stroke-opacity": 0.25 }),
      make("text", { x: left - 6, y: y(hu) + 4, "text-anchor": "end" }, words(hu, 0)));
    }
    for (const part of [0, 0.5, 1]) {
      const anchor = ["start", "middle", "end"][2 * part];
      svg.append(make("text", { x: x(part), y: bottom + 18, "text-anchor": anchor },
        words(part * length, 1) + (part === 1 ? unit : "")));
    }
    svg.append(make("text", { x: left - 6, y: 12, "text-anchor": "end" }, "HU"));
    let along = left;
    curves.forEach((curve, i) => {
      const look = { fill: "none", stroke: CURVES[i], "stroke-width": 2, "stroke-dasharray": DASHES[i] };
      const points = [...curve].map((hu, n) => `${x(n / (curve.length - 1)).toFixed(1)},${y(hu).toFixed(1)}`);
      svg.append(make("polyline", { ...look, points: points.join(" ") }),
        make("line", { ...look, x1: along, x2: along + 24, y1: 8, y2: 8 }),
        make("text", { x: along + 29, y: 12 }, this.panels[i].title));
      along += 29 + 7 * this.panels[i].title.length + 18;
    });
    return svg;
  }

  // 3d. Tools.

  choose(tool) {
    this.tool = tool;
    for (const button of this.toolButtons) button.setAttribute("aria-pressed", button.dataset.tool === tool);
  }

  toggleWipe() {
    this.wipe = this.wipe ? null : { left: 0, right: 1, at: 0.5 };
    this.wipeBar.hidden = !this.wipe;
    this.wipeButton.setAttribute("aria-pressed", this.wipe !== null);
    [this.wipeLeft.value, this.wipeRight.value] = [0, 1];
    this.curtain.value = 50;
    this.layOut();
  }

  moveCurtain(part) {
    this.wipe.at = clamp(part, 0, 1);
    this.curtain.value = Math.round(100 * this.wipe.at);
    this.invalidate("wipe");
  }

  clear() {
    this.set({ roi: null, line: null, probe: null });
  }

  wholePicture() {
    this.view = { scale: 1, x: 0, y: 0 };
    this.invalidate("view");
  }

  /** Zoom about a place in parts of a panel, and move it by (dx, dy). */
  zoom(factor, fx = 0.5, fy = 0.5, dx = 0, dy = 0) {
    const { scale, x, y } = this.view;
    const now = clamp(scale * factor, 1, 24);
    const moved = (at, from, by) => clamp(at - ((at - from) * now) / scale + by, 1 - now, 0);
    this.view = { scale: now, x: moved(fx, x, dx), y: moved(fy, y, dy) };
    this.invalidate("view");
  }

  step(slices) {
    this.set({ slice: clamp(this.get("slice") + slices, 0, this.depth - 1) });
  }

  setWindow(level, width) {
    this.set({ level: clamp(Math.round(level), -1024, 3072), width: clamp(Math.round(width), 1, 4096) });
  }

  /** Where a pointer is: in parts of the panel, and in pixels of the slice. */
  where(event, panel) {
    const box = panel.box.getBoundingClientRect();
    const [fx, fy] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    const { scale, x, y } = this.view;
    return { fx, fy, x: clamp(((fx - x) / scale) * this.columns, 0, this.columns),
      y: clamp(((fy - y) / scale) * this.rows, 0, this.rows) };
  }

  pixelAt({ x, y }) {
    return { x: Math.min(Math.floor(x), this.columns - 1), y: Math.min(Math.floor(y), this.rows - 1) };
  }

  /** What a drag does, by tool: called with the place now, for as long as the pointer is down. */
  dragOf(event, start, panel) {
    if (this.wipe && Math.abs(start.fx - this.wipe.at) * this.side < 16) return (now) => this.moveCurtain(now.fx);
    if (event.button === 1 || event.shiftKey || this.tool === "pan") {
      let last = start;
      return (now) => {
        this.zoom(1, 0, 0, now.fx - last.fx, now.fy - last.fy);
        last = now;
      };
    }
    return this.drags(start, panel)[this.tool];
  }

  /** What a drag from `start` in a panel does, for each tool. */
  drags(start) {
    const [level, width] = [this.get("level"), this.get("width")];
    const tenth = (number) => Math.round(number * 10) / 10;
    return {
      // Wide windows move fast, narrow ones slowly: the whole width in 250 screen pixels.
      window: (now) => {
        const pace = Math.max(width, 50) / 250;
        this.setWindow(level - (now.fy - start.fy) * this.tall * pace, width + (now.fx - start.fx) * this.side * pace);
      },
      probe: (now) => this.set({ probe: this.pixelAt(now) }),
      box: (now) => {
        const [[x0, x1], [y0, y1]] = ["x", "y"].map((c) => [start[c], now[c]].map(Math.round).sort((a, b) => a - b));
        this.set({ roi: x0 < x1 && y0 < y1 ? { kind: "box", x0, y0, x1, y1 } : null });
      },
      circle: (now) => {
        const r = tenth(Math.hypot(now.x - start.x, now.y - start.y));
        this.set({ roi: r >= 1 ? { kind: "circle", x: tenth(start.x), y: tenth(start.y), r } : null });
      },
      profile: (now) => {
        const far = Math.hypot(now.x - start.x, now.y - start.y) >= 2;
        const line = { x0: tenth(start.x), y0: tenth(start.y), x1: tenth(now.x), y1: tenth(now.y) };
        this.set({ line: far ? line : null });
      },
    };
  }

  /** What an arrow key does, by tool. */
  nudge(dx, dy, large) {
    const by = large ? 10 : 1;
    const middle = { x: this.columns >> 1, y: this.rows >> 1 };
    const moved = (mark, xs, ys) => Object.fromEntries(Object.entries(mark).map(([name, value]) =>
      [name, xs.includes(name) ? value + dx * by : ys.includes(name) ? value + dy * by : value]));
    if (this.tool === "window") {
      this.setWindow(this.get("level") - 5 * by * dy, this.get("width") + 5 * by * dx);
    } else if (this.tool === "pan") {
      this.zoom(1, 0, 0, -0.05 * dx * by, -0.05 * dy * by);
    } else if (this.tool === "probe") {
      const spot = moved(this.get("probe") ?? middle, ["x"], ["y"]);
      this.hover = null;
      this.set({ probe: { x: clamp(spot.x, 0, this.columns - 1), y: clamp(spot.y, 0, this.rows - 1) } });
    } else if (this.tool === "profile") {
      const quarter = this.columns >> 2;
      const line = this.get("line") ?? { x0: middle.x - quarter, y0: middle.y, x1: middle.x + quarter, y1: middle.y };
      this.set({ line: moved(line, ["x0", "x1"], ["y0", "y1"]) });
    } else {
      const r = Math.max(2, this.columns >> 4);
      const fresh = this.tool === "circle" ? { kind: "circle", ...middle, r }
        : { kind: "box", x0: middle.x - r, y0: middle.y - r, x1: middle.x + r, y1: middle.y + r };
      this.set({ roi: moved(this.get("roi") ?? fresh, ["x", "x0", "x1"], ["y", "y0", "y1"]) });
    }
  }

  grow(by) {
    const roi = this.get("roi");
    if (roi?.kind === "circle") this.set({ roi: { ...roi, r: Math.max(1, roi.r + by) } });
    else if (roi && roi.x1 - roi.x0 + 2 * by > 0 && roi.y1 - roi.y0 + 2 * by > 0) {
      this.set({ roi: { ...roi, x0: roi.x0 - by, y0: roi.y0 - by, x1: roi.x1 + by, y1: roi.y1 + by } });
    }
  }

  // 3e. Pointers (mouse, pen, fingers), wheel and keys.

  pointerDown(event, panel) {
    if (event.button > 1) return; // the right button keeps its menu
    event.preventDefault(); // no selected text, no dragged picture
    this.stage.focus({ preventScroll: true, focusVisible: false });
    panel.box.setPointerCapture(event.pointerId);
    const { clientX, clientY } = event;
    this.pointers.set(event.pointerId, { clientX, clientY });
    this.pinched = this.between(panel);
    this.drag = this.pointers.size === 1 ? this.dragOf(event, this.where(event, panel), panel) : null;
    if (this.clickTools.includes(this.tool) || event.pointerType === "touch") this.pointerMove(event, panel);
  }

  pointerMove(event, panel) {
    const now = this.where(event, panel);
    this.hover = { ...this.pixelAt(now), panel: event.pointerType === "touch" ? null : panel }; // mice have a cross
    if (this.pointers.has(event.pointerId)) {
      const { clientX, clientY } = event;
      this.pointers.set(event.pointerId, { clientX, clientY });
      if (this.pinched) this.pinch(this.pinched);
      else this.drag?.(now);
    }
    this.invalidate("hover");
  }

  /** How far apart two fingers are, and the place between them; null unless there are two. */
  between(panel) {
    if (this.pointers.size !== 2) return null;
    const [p, q] = [...this.pointers.values()].map((finger) => this.where(finger, panel));
    const spread = Math.hypot((p.fx - q.fx) * this.side, (p.fy - q.fy) * this.tall);
    return { panel, view: this.view, spread: Math.max(spread, 1), fx: (p.fx + q.fx) / 2, fy: (p.fy + q.fy) / 2 };
  }

  /** Measured from where the fingers began, so that neither order nor number of their moves matters. */
  pinch(begun) {
    const { spread, fx, fy } = this.between(begun.panel);
    this.view = begun.view;
    this.zoom(spread / begun.spread, begun.fx, begun.fy, fx - begun.fx, fy - begun.fy);
  }

  pointerUp(event, panel) {
    this.pointers.delete(event.pointerId);
    this.pinched = this.between(panel);
    this.drag = null; // after a pinch, the finger that stays does nothing
    this.layOut();
  }

  pointerLeave(event) {
    if (event.pointerType === "touch") return; // what was touched stays in view
    this.hover = null;
    this.invalidate("hover");
  }

  wheel(event, panel) {
    const pixels = event.deltaY * [1, 40, 400][event.deltaMode];
    if (event.ctrlKey || event.metaKey) { // also what a pinch on a touchpad sends
      event.preventDefault();
      const { fx, fy } = this.where(event, panel);
      this.zoom(Math.exp(-clamp(pixels, -100, 100) / 200), fx, fy);
      return;
    }
    const direction = pixels > 0 ? -1 : 1; // wheel up: towards the head
    const end = direction > 0 ? this.depth - 1 : 0;
    if (this.get("slice") === end) return; // the page scrolls on
    event.preventDefault();
    this.rolled = (Math.sign(this.rolled ?? 0) === Math.sign(pixels) ? this.rolled : 0) + pixels;
    const notches = Math.trunc(Math.abs(this.rolled) / 50); // a mouse's notch is about 100, a touchpad's a few
    if (notches === 0) return;
    this.rolled = 0;
    this.step(direction * Math.max(1, Math.trunc(notches / 2)));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const preset = this.presets[Number(event.key) - 1];
    const action = preset ? () => this.set({ level: preset.level, width: preset.width }) : this.keys(event)[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  /** What a key does, by its name. */
  keys(event) {
    return {
      ArrowLeft: () => this.nudge(-1, 0, event.shiftKey),
      ArrowRight: () => this.nudge(1, 0, event.shiftKey),
      ArrowUp: () => this.nudge(0, -1, event.shiftKey),
      ArrowDown: () => this.nudge(0, 1, event.shiftKey),
      PageUp: () => this.step(1),
      PageDown: () => this.step(-1),
      Home: () => this.step(-this.depth),
      End: () => this.step(this.depth),
      "+": () => this.zoom(1.25),
      "=": () => this.zoom(1.25),
      "-": () => this.zoom(0.8),
      0: () => this.wholePicture(),
      g: () => this.grow(1),
      s: () => this.grow(-1),
      Escape: () => this.clear(),
    };
  }
}

/** Colour of the n-th label: seven that stay apart, then lighter and darker ones of the same. */
function labelColour(order) {
  const hex = LABELS[order % LABELS.length];
  const turn = Math.floor(order / LABELS.length) % 3;
  const [towards, part] = [[0, 0], [255, 0.5], [0, 0.45]][turn];
  return [1, 3, 5].map((at) => Math.round(parseInt(hex.slice(at, at + 2), 16) * (1 - part) + towards * part));
}

/** The bytes of a DataView as a buffer of their own, which may begin anywhere in the message it came in. */
function aligned(view) {
  return view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
}

// 4. Hosts.

let Shown = Viewer; // the class that both hosts open; a file behind this one may put its own here

function render({ model, el }) {
  const viewer = new Shown(model, el);
  return () => viewer.remove();
}

/** In a page without kernel: `state` has the traits, `packed` the bytes as base64 of gzip. */
export async function showStatic(root, state, packed) {
  for (const [name, text] of Object.entries(packed)) state[name] = new DataView(await unpack(text));
  const listeners = new Map();
  const model = {
    get: (name) => state[name],
    set(name, value) {
      state[name] = value;
      for (const listener of listeners.get(`change:${name}`) ?? []) listener();
    },
    on: (event, listener) => listeners.set(event, [...(listeners.get(event) ?? []), listener]),
    off: (event, listener) => listeners.set(event, (listeners.get(event) ?? []).filter((one) => one !== listener)),
    save_changes() {},
  };
  document.documentElement.style.colorScheme = "light dark";
  return new Shown(model, root);
}

async function unpack(text) {
  if (!text) return new ArrayBuffer(0);
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

export default { render };
