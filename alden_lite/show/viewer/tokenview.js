
// TokenView: click a token, see what resembles it. Used by tokenview.py; taught in chapter 05.
//
// This text stands behind that of ctview.js, and both are one module: it uses what is defined there.
//
// A token is a square of pixels with a vector of features: whole numbers of 8 bits, one vector after the
// other. Rows and columns of tokens count from 0.

/** Cosine of each token (Int8Array) with a query: sums of whole numbers, so they are tokenview.py's exactly. */
export function cosines(tokens, query) {
  const channels = query.length;
  const result = new Float64Array(tokens.length / channels);
  const own = query.reduce((sum, value) => sum + value * value, 0);
  for (let i = 0; i < result.length; i++) {
    let [dot, squares] = [0, 0];
    for (let c = 0, at = i * channels; c < channels; c++, at++) {
      dot += tokens[at] * query[c];
      squares += tokens[at] * tokens[at];
    }
    result[i] = own * squares > 0 ? dot / Math.sqrt(squares * own) : 0; // a vector of zeros resembles nothing
  }
  return result;
}

/** Pixels of similarities, as `similarity_colours` in tokenview.py: nothing below the threshold. */
export function paintSimilarity(pixels, similarity, threshold, colours) {
  for (let i = 0; i < similarity.length; i++) {
    const step = Math.floor(255 * clamp((similarity[i] - threshold) / (1 - threshold), 0, 1) + 0.5);
    pixels[i] = similarity[i] >= threshold ? colours[step] : 0;
  }
}

/** "0.83": a cosine as people write it, with a real minus sign. */
const cosineWords = (value) => value.toFixed(2).replace("-", "−");

const TOKEN_HELP = "Token: click a place, or drag across the picture, and the tokens of all panels that resemble it " +
  "are coloured. Keys: arrows choose the next token (Shift: 4 further), p the same one in the next panel, " +
  "Escape none.";

const TOKEN_STYLE = `
.picture .overlay { inset: 0 auto auto 0; image-rendering: pixelated; }
.tokens { margin-top: 6px; }
.tokens p { margin: 0 0 4px; min-height: 1.4em; }
.scale { display: inline-flex; gap: 6px; align-items: center; }
.ramp { border: 1px solid var(--line); background: #666; line-height: 0; }
.ramp canvas { width: 9em; height: 14px; }
`;

class TokenViewer extends Viewer {
  get watched() {
    return [...super.watched, "token", "layer", "threshold", "overlay_opacity"];
  }

  get tools() {
    return { token: ["Token", "Click a place: what resembles it?"], ...super.tools };
  }

  get clickTools() {
    return ["token", ...super.clickTools];
  }

  get help() {
    return [TOKEN_HELP, ...super.help];
  }

  readPixels() {
    super.readPixels();
    const { layers, grid, side, colours } = this.get("_tokens"); // never changes
    [this.grid, this.tokenSide] = [{ rows: grid[0], columns: grid[1] }, side];
    this.similarityColours = Uint32Array.from(colours, ([r, g, b]) => 0xff000000 | (b << 16) | (g << 8) | r);
    this.compared = this.panels.filter((panel) => !panel.difference); // a difference has no features
    const features = new Int8Array(aligned(this.get("_features")));
    const perSlice = grid[0] * grid[1];
    let start = 0;
    this.layers = new Map(layers.map(([name, channels]) => {
      const size = perSlice * channels;
      const first = start;
      start += this.compared.length * this.depth * size;
      const place = (panel, z) => first + (panel * this.depth + z) * size;
      const tokens = (panel, z) => features.subarray(place(panel, z), place(panel, z) + size);
      return [name, { channels, tokens }];
    }));
  }

  build(element) {
    super.build(element);
    this.host.shadowRoot.append(make("style", {}, TOKEN_STYLE));
    this.root.insertBefore(this.buildTokens(), this.results);
  }

  buildPanel(panel) {
    super.buildPanel(panel);
    const { rows, columns } = this.grid;
    panel.overlay = make("canvas", { class: "overlay", width: columns, height: rows, "aria-hidden": "true" });
    // Of a down-sampled picture, the last row and column of tokens may reach beyond it.
    panel.overlay.style.width = `${(100 * columns * this.tokenSide) / this.columns}%`;
    panel.overlay.style.height = `${(100 * rows * this.tokenSide) / this.rows}%`;
    panel.picture.append(panel.overlay);
  }

  buildTokens() {
    const select = make("select", { "aria-label": "Layer", onchange: () => this.set({ layer: select.value }) },
      ...[...this.layers.keys()].map((name) => make("option", { value: name }, name)));
    select.hidden = this.layers.size === 1;
    this.updates.push(() => { select.value = this.get("layer"); });
    const percent = (part) => `${Math.round(100 * part)} %`;
    this.tokenText = make("p");
    return make("div", { class: "tokens" },
      this.tokenText,
      bar("Similarity", select, this.buildScale()),
      make("div", { class: "sliders" },
        this.slider("threshold", "Show from", -1, 0.99, cosineWords, cosineWords, 0.01),
        this.slider("overlay_opacity", "Overlay", 0, 1, percent, percent, 0.05)));
  }

  /** The colours, as they are seen over a grey, with a number at each end. */
  buildScale() {
    const size = this.similarityColours.length;
    const canvas = make("canvas", { width: size, height: 1, "aria-hidden": "true" });
    const image = new ImageData(size, 1);
    new Uint32Array(image.data.buffer).set(this.similarityColours);
    canvas.getContext("2d").putImageData(image, 0, 0);
    const low = make("span");
    const ramp = make("span", { class: "ramp" }, canvas);
    const scale = make("div", { class: "scale", role: "img" }, low, ramp, make("span", {}, "1.00"));
    this.updates.push(() => {
      low.textContent = cosineWords(this.get("threshold"));
      canvas.style.opacity = this.get("overlay_opacity");
      scale.setAttribute("aria-label", `Colours from ${low.textContent}, dark violet, to 1.00, yellow`);
    });
    return scale;
  }

  // Comparing and drawing.

  /** The chosen token with the number of its panel, or null; linked viewers may name panels we do not have. */
  chosen() {
    const token = this.get("token");
    const panel = this.compared.findIndex(({ title }) => title === token?.panel);
    return panel < 0 ? null : { ...token, panel, slice: token.slice ?? 0 };
  }

  draw() {
    const dirty = (...names) => names.some((name) => this.dirty.has(name));
    if (dirty("slice", "token", "layer")) this.compare(clamp(this.get("slice"), 0, this.depth - 1));
    if (dirty("slice", "token", "layer", "threshold")) this.paintOverlays();
    for (const panel of this.compared) panel.overlay.style.opacity = this.get("overlay_opacity");
    super.draw();
  }

  compare(z) {
    const { channels, tokens } = this.layers.get(this.get("layer"));
    const token = this.chosen();
    const at = token && (token.row * this.grid.columns + token.column) * channels;
    const query = token && tokens(token.panel, token.slice).subarray(at, at + channels);
    this.compared.forEach((panel, number) => { panel.similarity = query ? cosines(tokens(number, z), query) : null; });
  }

  paintOverlays() {
    const { rows, columns } = this.grid;
    for (const { overlay, similarity } of this.compared) {
      const image = new ImageData(columns, rows);
      const pixels = new Uint32Array(image.data.buffer);
      if (similarity) paintSimilarity(pixels, similarity, this.get("threshold"), this.similarityColours);
      overlay.getContext("2d").putImageData(image, 0, 0);
    }
  }

  /** With a curtain, overlays go with their pictures; they are seen through, so both of them end at it. */
  place() {
    super.place();
    for (const [number, panel] of this.panels.entries()) {
      const { left, right, at } = this.wipe ?? { left: number, right: number };
      const over = number === right && left !== right;
      const home = over ? this.panels[left].picture : panel.picture;
      if (panel.overlay.parentNode !== home) home.append(panel.overlay);
      // The curtain in parts of the overlay, which may be a little wider than the picture.
      const wide = (this.grid.columns * this.tokenSide) / this.columns;
      const cut = 100 * clamp((at - this.view.x) / this.view.scale / wide, 0, 1);
      panel.overlay.style.clipPath = left === right ? "" : over ? `inset(0 0 0 ${cut}%)` : `inset(0 ${100 - cut}% 0 0)`;
    }
  }

  drawMarks(panel) {
    super.drawMarks(panel);
    const [token, { hover }] = [this.chosen(), this];
    const z = clamp(this.get("slice"), 0, this.depth - 1);
    if (this.tool === "token" && hover?.panel === panel && this.compared.includes(this.panelAt(panel, hover.x + 0.5))) {
      panel.marks.prepend(make("rect", { ...this.frameOf(this.tokenAt(hover)), fill: "none", stroke: "#fff" }));
    }
    const middle = token && (token.column + 0.5) * this.tokenSide;
    if (token?.slice === z && this.panelAt(panel, middle) === this.compared[token.panel]) {
      panel.marks.prepend(...outlined("rect", this.frameOf(token)));
    }
  }

  /** A token's place on the screen. */
  frameOf({ row, column }) {
    const [x, y] = this.toScreen(column * this.tokenSide, row * this.tokenSide);
    const [right, bottom] = this.toScreen((column + 1) * this.tokenSide, (row + 1) * this.tokenSide);
    return { x, y, width: right - x, height: bottom - y };
  }

  // Texts.

  tokenWords(z) {
    const token = this.chosen();
    if (!token) return "Click the picture, or press an arrow key in it: tokens like the chosen one are coloured";
    const home = this.depth > 1 ? `, slice ${token.slice + this.facts.first_slice}` : "";
    const shares = this.compared.map((panel) => `${this.share(panel)} of ${panel.title}`);
    return `Token row ${token.row} column ${token.column} of ${this.compared[token.panel].title}${home}. ` +
      `Similarity of ${cosineWords(this.get("threshold"))} or more in ${this.get("layer")}: ${shares.join(", ")}`;
  }

  share({ similarity }) {
    const similar = similarity.filter((value) => value >= this.get("threshold"));
    return `${Math.round((100 * similar.length) / similarity.length)} %`;
  }

  probeWords(spot, z) {
    const said = super.probeWords(spot, z);
    if (!said || !this.compared[0].similarity) return said;
    const { row, column } = this.tokenAt(spot);
    const at = row * this.grid.columns + column;
    const each = this.compared.map((panel) => `${panel.title} ${cosineWords(panel.similarity[at])}`);
    return `${said} · similarity ${each.join(" · ")}`;
  }

  showTexts(z) {
    this.tokenText.textContent = this.tokenWords(z);
    for (const panel of this.compared) {
      const similar = panel.similarity ? `, ${this.share(panel)} of it similar to the chosen token` : "";
      panel.canvas.setAttribute("aria-label", panel.title + similar);
    }
    super.showTexts(z);
  }

  summary(z) {
    return `${this.tokenText.textContent}. ${super.summary(z)}`;
  }

  // Choosing.

  /** The token that a pixel lies in. */
  tokenAt({ x, y }) {
    const [row, column] = [y, x].map((place) => Math.floor((place + 0.5) / this.tokenSide));
    return { row, column };
  }

  /** The panel whose picture is seen in a panel's box at x: with a curtain, this may be another one. */
  panelAt(panel, x) {
    if (!this.wipe) return panel;
    return this.panels[this.toScreen(x, 0)[0] < this.wipe.at * this.side ? this.wipe.left : this.wipe.right];
  }

  /** Choose a token of the slice shown, by the number of its panel. */
  pick({ panel, row, column }) {
    const stack = this.depth > 1 ? { slice: clamp(this.get("slice"), 0, this.depth - 1) } : {};
    this.set({ token: { panel: this.compared[panel].title, ...stack, row, column } });
  }

  drags(start, panel) {
    const token = (now) => {
      const spot = this.pixelAt(now);
      const number = this.compared.indexOf(this.panelAt(panel, spot.x + 0.5));
      if (number >= 0) this.pick({ panel: number, ...this.tokenAt(spot) });
    };
    return { ...super.drags(start, panel), token };
  }

  pointerDown(event, panel) {
    const before = this.get("token");
    super.pointerDown(event, panel);
    if (this.pointers.size === 1) this.before = before;
    // Two fingers enlarge, and choose nothing: what the first one has chosen is taken back.
    else if (this.pointers.size === 2 && this.tool === "token") this.set({ token: this.before });
  }

  pointerMove(event, panel) {
    super.pointerMove(event, panel);
    if (this.tool === "token") this.hover.panel = panel; // a cross would hide the token below a finger
  }

  nudge(dx, dy, large) {
    if (this.tool !== "token") {
      super.nudge(dx, dy, large);
      return;
    }
    const { rows, columns } = this.grid;
    const { panel, row, column } = this.chosen() ?? { panel: 0, row: rows >> 1, column: columns >> 1 };
    const by = large ? 4 : 1;
    this.hover = null;
    this.pick({ panel, row: clamp(row + dy * by, 0, rows - 1), column: clamp(column + dx * by, 0, columns - 1) });
  }

  keys(event) {
    const next = () => {
      const token = this.chosen();
      if (token) this.pick({ ...token, panel: (token.panel + 1) % this.compared.length });
    };
    return { ...super.keys(event), p: next };
  }

  clear() {
    super.clear();
    this.set({ token: null });
  }
}

Shown = TokenViewer;
