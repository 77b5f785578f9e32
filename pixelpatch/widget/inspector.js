// The browser's half of inspector.py: draws fields from tables as fast as the pointer moves.

const FIELD = "#d55e00"; // the chosen pixel and its field: solid
const PIN = "#0b3c5d"; // the pinned one: dashed, so that colour is not all that tells them apart
const CUT = "#000000"; // what a click cuts out: dashed
const JUMP = 10; // pixels, for Page Up, Page Down, and an arrow with Control

// ---- small helpers --------------------------------------------------------------------------------------

function element(tag, { on = {}, data = {}, ...properties } = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  Object.assign(made.dataset, data);
  for (const [event, handler] of Object.entries(on)) made.addEventListener(event, handler);
  made.append(...children);
  return made;
}

function unpack(text, Kind) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return new Kind(bytes.buffer);
}

const clamp = (value, count) => Math.min(Math.max(value, 0), count - 1);
const number = (value, digits = 2) => value.toFixed(digits).replace("-", "\u2212");
const signed = (value) => (value > 0 ? "+" : "") + number(value, 1);
const rowsAndColumns = (box) =>
  `rows ${box.top} to ${box.bottom - 1}, columns ${box.left} to ${box.right - 1}`;

// ---- what is known of a network -------------------------------------------------------------------------

class Network {
  constructor(told, image) {
    Object.assign(this, told);
    this.image = image;
    [this.height, this.width] = told.size;
    this.scores = unpack(told.scores, Int16Array);
    const Kind = told.bits === 16 ? Uint16Array : Uint32Array;
    this.axes = told.axes.map(({ offset, runs, joint }) => ({ offset: unpack(offset, Kind), runs: unpack(runs, Kind), joint }));
    this.sameSize = this.height === image.height && this.width === image.width;
    this.warped = this.axes.some(({ joint }) => joint);
  }

  // Output position i sees start <= j < stop of each run [start, stop].
  runs(axis, i) {
    const { offset, runs } = this.axes[axis];
    const found = [];
    for (let k = offset[i]; k < offset[i + 1]; k++) found.push([runs[2 * k], runs[2 * k + 1]]);
    return found;
  }

  // The field of an output pixel in a layer: the union of rows x columns, and the box round it.
  field({ row, col }, layer = 0) {
    const pixel = row * this.width + col; // what counts in the axes before a warp
    const products = this.layers[layer].terms
      .map(([rows, cols]) => (this.axes[rows].joint ? [this.runs(rows, pixel), this.runs(cols, pixel)]
        : [this.runs(rows, row), this.runs(cols, col)]))
      .filter(([rows, cols]) => rows.length && cols.length);
    const box = { top: 0, left: 0, bottom: 0, right: 0 };
    if (products.length) {
      box.top = Math.min(...products.map(([rows]) => rows[0][0]));
      box.left = Math.min(...products.map(([, cols]) => cols[0][0]));
      box.bottom = Math.max(...products.map(([rows]) => rows.at(-1)[1]));
      box.right = Math.max(...products.map(([, cols]) => cols.at(-1)[1]));
    }
    return { products, box, count: area(products, box) };
  }

  scoresAt({ row, col }) {
    const plane = this.height * this.width;
    return this.classes.map((_, k) => this.scores[k * plane + row * this.width + col] * this.unit);
  }

  // Bytes red, green, blue of each pixel: its class's colour; grey where there is one score.
  prediction() {
    const plane = this.height * this.width;
    const low = this.scores.reduce((a, b) => Math.min(a, b));
    const high = this.scores.reduce((a, b) => Math.max(a, b));
    const palette = this.colours.map((colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));
    const bytes = new Uint8Array(3 * plane);
    for (let i = 0; i < plane; i++) {
      let best = 0;
      for (let k = 1; k < palette.length; k++) if (this.scores[k * plane + i] > this.scores[best * plane + i]) best = k;
      const grey = (255 * (this.scores[i] - low)) / (high - low || 1);
      bytes.set(palette.length > 1 ? palette[best] : [grey, grey, grey], 3 * i);
    }
    return bytes;
  }

  // The output pixel that stands for a position (row, col) of the input: the one with the nearest patch.
  nearest(row, col) {
    if (this.sameSize || this.warped) {
      const [down, across] = [this.height / this.image.height, this.width / this.image.width];
      return { row: clamp(Math.floor(row * down), this.height), col: clamp(Math.floor(col * across), this.width) };
    }
    const [rows, cols] = this.layers[0].terms[0];
    return { row: this.closest(rows, this.height, row), col: this.closest(cols, this.width, col) };
  }

  closest(axis, count, position) {
    let best = 0;
    let distance = Infinity;
    for (let i = 0; i < count; i++) {
      const runs = this.runs(axis, i);
      const away = runs.length ? Math.abs((runs[0][0] + runs.at(-1)[1]) / 2 - position) : Infinity;
      if (away < distance) [best, distance] = [i, away];
    }
    return best;
  }

  // Where an output pixel lies in the input: the inverse of `nearest`.
  place({ row, col }) {
    if (this.sameSize) return [row + 0.5, col + 0.5];
    const { box } = this.field({ row, col });
    return [(box.top + box.bottom) / 2, (box.left + box.right) / 2];
  }
}

function area(products, box) {
  const length = (runs) => runs.reduce((sum, [start, stop]) => sum + stop - start, 0);
  if (products.length < 2) return products.reduce((sum, [rows, cols]) => sum + length(rows) * length(cols), 0);
  const width = box.right - box.left;
  const seen = new Uint8Array((box.bottom - box.top) * width);
  for (const [rows, cols] of products)
    for (const [top, bottom] of rows)
      for (let row = top; row < bottom; row++)
        for (const [left, right] of cols)
          seen.fill(1, (row - box.top) * width + left - box.left, (row - box.top) * width + right - box.left);
  return seen.reduce((sum, one) => sum + one, 0);
}

// ---- pictures -------------------------------------------------------------------------------------------

// A picture of height x width pixels, and a sheet over it to draw on, in the screen's own resolution.
class Panel {
  constructor(options = {}) {
    this.canvas = element("canvas");
    this.sheet = element("canvas", options);
    this.stack = element("div", { className: "patch-stack" }, this.canvas, this.sheet);
    this.caption = element("figcaption");
    this.figure = element("figure", {}, this.stack, this.caption);
  }

  paint({ height, width, rgb }, share = 1) {
    Object.assign(this.canvas, { height, width });
    this.stack.style.width = `${100 * share}%`;
    this.stack.style.aspectRatio = `${width} / ${height}`;
    if (!rgb) return;
    const picture = new ImageData(width, height);
    const bytes = typeof rgb === "string" ? unpack(rgb, Uint8Array) : rgb;
    picture.data.fill(255); // opaque
    for (let i = 0; i < height * width; i++)
      for (let k = 0; k < 3; k++) picture.data[4 * i + k] = bytes[3 * i + k];
    this.canvas.getContext("2d").putImageData(picture, 0, 0);
  }

  // A cleared sheet; `scale` is screen pixels per picture pixel, the same for rows and columns.
  begin() {
    const { clientWidth, clientHeight } = this.stack;
    const dense = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(clientWidth * dense), Math.round(clientHeight * dense)];
    if (this.sheet.width !== width || this.sheet.height !== height) Object.assign(this.sheet, { width, height });
    this.pen = this.sheet.getContext("2d");
    this.pen.clearRect(0, 0, width, height);
    this.dense = dense;
    this.across = width / this.canvas.width;
    this.down = height / this.canvas.height;
  }

  // A line with a white rim shows on dark and on light.
  stroke(path, colour, dashed) {
    for (const [style, thick] of [["#ffffff", 4.5], [colour, 2.5]]) {
      this.pen.setLineDash(dashed && style === colour ? [6 * this.dense, 4 * this.dense] : []);
      Object.assign(this.pen, { strokeStyle: style, lineWidth: thick * this.dense });
      this.pen.stroke(path);
    }
  }

  box({ top, left, bottom, right }, colour, dashed) {
    const rim = 2.25 * this.dense; // the line runs round the field, but inside the picture
    const path = new Path2D();
    const near = (edge, scale) => Math.max(edge * scale - rim, rim);
    const far = (edge, scale, end) => Math.min(edge * scale + rim, end - rim);
    const [x, y] = [near(left, this.across), near(top, this.down)];
    path.rect(x, y, far(right, this.across, this.sheet.width) - x, far(bottom, this.down, this.sheet.height) - y);
    this.stroke(path, colour, dashed);
  }

  // The exact set, where it is less than its box (or where there is no picture below).
  set(products, colour) {
    const path = new Path2D();
    const size = (start, stop, scale) => Math.max((stop - start) * scale, 2.5 * this.dense); // a lone pixel shows
    for (const [rows, cols] of products)
      for (const [top, bottom] of rows)
        for (const [left, right] of cols)
          path.rect(left * this.across, top * this.down, size(left, right, this.across), size(top, bottom, this.down));
    Object.assign(this.pen, { fillStyle: colour, globalAlpha: 0.85 });
    this.pen.fill(path);
    this.pen.globalAlpha = 1;
  }

  // A picture of the box `cut`, laid over the part of it that lies in `box`.
  overlay(canvas, [top, left, bottom, right], box) {
    const place = (y, x, height, width) => [x * this.across, y * this.down, width * this.across, height * this.down];
    this.pen.save();
    this.pen.beginPath();
    this.pen.rect(...place(box.top, box.left, box.bottom - box.top, box.right - box.left));
    this.pen.clip();
    Object.assign(this.pen, { globalAlpha: 0.7, imageSmoothingEnabled: false });
    this.pen.drawImage(canvas, ...place(top, left, bottom - top, right - left));
    this.pen.restore();
  }

  ring([row, col], colour, dashed) {
    const path = new Path2D();
    const radius = Math.max(6 * this.dense, 0.7 * this.across);
    path.arc(col * this.across, row * this.down, radius, 0, 7);
    this.stroke(path, colour, dashed);
  }

  at(event) {
    const { left, top, width, height } = this.sheet.getBoundingClientRect();
    return [
      ((event.clientY - top) / height) * this.canvas.height,
      ((event.clientX - left) / width) * this.canvas.width,
    ];
  }
}

// ---- the widget -----------------------------------------------------------------------------------------

function render({ model, el }) {
  const { image, networks: told, live } = model.get("contents");
  const networks = told.map((one) => new Network(one, image));
  let network = networks[0];
  let now = { row: network.height >> 1, col: network.width >> 1 };
  let pin = null;
  let layer = 0;
  let asked = 0;
  let explained = null; // the last answer

  // -- parts
  const input = new Panel();
  const output = new Panel({ tabIndex: 0, role: "application", className: "patch-output" });
  const inside = new Panel();
  const readout = element("div", { role: "status", "aria-live": "polite", className: "patch-readout" });
  const answer = element("section", { "aria-live": "polite", className: "patch-answer" });
  const patch = new Panel();
  const heat = new Panel();
  const legend = element("div", { className: "patch-legend" });
  const slider = element("input", { type: "range", min: 0, value: 0, "aria-label": "layer" });
  const layerName = element("output");
  const tabs = networks.map((one, k) =>
    element("button", { type: "button", role: "tab", textContent: one.name, on: { click: () => select(k) } }),
  );
  const tablist = element("div", { role: "tablist", "aria-label": "network", className: "patch-tabs" }, ...tabs);
  const button = (text, act) => element("button", { type: "button", textContent: text, on: { click: act } });
  const pinButton = button("Pin this pixel", togglePin);

  const root = element("div", { className: "patch-inspector", "data-lm-suppress-shortcuts": "true" },
    tablist,
    element("div", { className: "patch-panels" }, input.figure, output.figure, inside.figure),
    legend,
    element("label", { className: "patch-slider" }, "Field in layer", slider, layerName),
    readout,
    element("div", { className: "patch-buttons" }, button("Explain this pixel (Enter)", ask), pinButton),
    answer,
  );
  tablist.hidden = networks.length < 2;

  // -- what the reader sees
  function select(k) {
    const places = [now, pin].map((pixel) => pixel && network.place(pixel));
    network = networks[k];
    [now, pin] = places.map((place) => place && network.nearest(...place));
    tabs.forEach((tab, i) => {
      tab.setAttribute("aria-selected", i === k);
      tab.tabIndex = i === k ? 0 : -1;
    });
    const { height, width } = network;
    output.paint({ height, width, rgb: network.prediction() }, Math.min(1, Math.max(0.15, network.shares[1])));
    output.caption.textContent = `Prediction of ${network.name}, ${height} × ${width}`;
    output.sheet.setAttribute("aria-label",
      `Prediction of ${network.name}, ${height} by ${width} pixels. Arrow keys choose a pixel, Enter explains it, ` +
      "Shift and Enter pins it.");
    const swatches = network.classes.map((name, i) =>
      element("span", {}, element("i", { style: `background: ${network.colours[i]}` }), name));
    legend.replaceChildren(...(swatches.length > 1 ? swatches : []));
    slider.max = network.layers.length - 1;
    show(Math.min(layer, network.layers.length - 1));
  }

  function show(chosen) {
    layer = chosen;
    slider.value = layer;
    const { name, op, shape } = network.layers[layer];
    const title = layer ? `${name} (${op}), ${shape.at(-2)} × ${shape.at(-1)}` : "input";
    layerName.textContent = title;
    slider.setAttribute("aria-valuetext", title);
    inside.figure.hidden = layer === 0;
    inside.paint({ height: shape.at(-2), width: shape.at(-1) });
    inside.caption.textContent = `Layer ${title}`;
    draw();
  }

  function draw() {
    const field = network.field(now);
    input.begin();
    output.begin();
    if (pin) {
      input.box(network.field(pin).box, PIN, true);
      output.ring([pin.row + 0.5, pin.col + 0.5], PIN, true);
    }
    const { box, count } = field;
    const told = explained && explained.network === network.name && samePlace(explained, now);
    if (told) input.overlay(heat.canvas, explained.cut, box);
    if (count < (box.bottom - box.top) * (box.right - box.left)) input.set(field.products, FIELD);
    if (told) {
      const [top, left, bottom, right] = explained.cut;
      input.box({ top, left, bottom, right }, CUT, true);
    }
    input.box(box, FIELD);
    const place = [now.row + 0.5, now.col + 0.5];
    if (network.sameSize) input.ring(place, FIELD); // where the pixel itself lies: seldom the middle of its patch
    output.ring(place, FIELD);
    const lines = [describe("Pixel", now, field), ...(pin ? [describe("Pinned", pin, network.field(pin))] : [])];
    if (layer) {
      const within = network.field(now, layer);
      inside.begin();
      inside.set(within.products, FIELD);
      inside.box(within.box, FIELD);
      lines.push(`In layer ${network.layers[layer].name}: ${extent(within)}, ${rowsAndColumns(within.box)}.`);
    }
    for (const { layer: name, reason } of network.whole.slice(0, 1))
      lines.push(`The patch is the whole image because of layer ${name}: ${reason}.`);
    readout.replaceChildren(...lines.map((line) => element("p", { textContent: line })));
    pinButton.textContent = samePixel() ? "Unpin this pixel" : "Pin this pixel";
  }

  function extent({ box, count }) {
    const [height, width] = [box.bottom - box.top, box.right - box.left];
    const exact = count < height * width ? ` (with holes: ${count} of ${height * width} seen)` : "";
    return `${height} × ${width}${exact}`;
  }

  function describe(what, pixel, field) {
    const { box } = field;
    const scores = network.scoresAt(pixel);
    const best = network.classes[scores.indexOf(Math.max(...scores))];
    const listed = network.classes.map((name, k) => `${name} ${number(scores[k])}`).join(", ");
    const middle = [(box.top + box.bottom) / 2, (box.left + box.right) / 2];
    const centre = network.sameSize
      ? `centre offset (${signed(middle[0] - pixel.row - 0.5)}, ${signed(middle[1] - pixel.col - 0.5)})`
      : `centred on (${middle.map((at) => number(at - 0.5, 1)).join(", ")})`;
    const says = scores.length > 1 ? `${best}; scores ${listed}` : `score ${number(scores[0])}`;
    return `${what} (${pixel.row}, ${pixel.col}): ${says}. Patch ${extent(field)}, ${rowsAndColumns(box)}, ${centre}.`;
  }

  // -- what the reader does
  function choose(pixel) {
    if (pixel.row === now.row && pixel.col === now.col) return;
    now = pixel;
    draw();
  }

  const samePlace = (one, other) => one.row === other.row && one.col === other.col;
  const samePixel = () => pin !== null && samePlace(pin, now);

  function togglePin() {
    pin = samePixel() ? null : { ...now };
    draw();
  }

  function ask() {
    if (!live) return say("The effective field, the patch cut out and the proof need a running notebook.");
    asked = Math.max(asked, model.get("answer").number || 0) + 1;
    const mine = asked;
    say(`Asking about pixel (${now.row}, ${now.col}) …`);
    model.set("request", { number: mine, network: network.name, ...now });
    model.save_changes();
    setTimeout(() => {
      if (mine === asked && model.get("answer").number !== mine)
        say("No answer yet: the kernel is busy, or was restarted. After a restart, run the cell again.");
    }, 5000);
  }

  function say(text) {
    answer.replaceChildren(element("p", { textContent: text }));
  }

  function showAnswer() {
    const got = model.get("answer");
    if (!got.number || got.number < asked) return;
    asked = got.number;
    if (got.error) return say(`That failed. ${got.error}`);
    const words = [`${got.network}, pixel (${got.row}, ${got.col}). ${got.said}`, got.effective];
    const [top, left, bottom, right] = got.cut;
    patch.caption.textContent =
      `The cut: rows ${top} to ${bottom - 1}, columns ${left} to ${right - 1}. The box in it is the patch`;
    heat.caption.textContent = "Effective field: brighter pixels move the score more";
    patch.paint({ height: bottom - top, width: right - left });
    patch.canvas.getContext("2d").drawImage(input.canvas, -left, -top);
    heat.paint(got.heat);
    answer.replaceChildren(
      ...words.map((text) => element("p", { textContent: text })),
      element("div", { className: "patch-panels" }, patch.figure, heat.figure),
    );
    for (const panel of [patch, heat]) {
      panel.canvas.setAttribute("role", "img");
      panel.canvas.setAttribute("aria-label", panel.caption.textContent);
    }
    const { box } = networks.find((one) => one.name === got.network).field(got);
    patch.begin();
    patch.box({ top: box.top - top, left: box.left - left, bottom: box.bottom - top, right: box.right - left }, FIELD);
    explained = got;
    draw();
  }

  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
    PageUp: [-JUMP, 0], PageDown: [JUMP, 0], Home: [0, -Infinity], End: [0, Infinity] };

  output.sheet.addEventListener("keydown", (event) => {
    if (event.key in step) {
      const far = event.ctrlKey && event.key.startsWith("Arrow") ? JUMP : 1;
      const [down, across] = step[event.key];
      choose({ row: clamp(now.row + far * down, network.height), col: clamp(now.col + far * across, network.width) });
    } else if (event.key === "Enter") (event.shiftKey ? togglePin : ask)();
    else return;
    event.preventDefault();
  });
  tablist.addEventListener("keydown", (event) => {
    const turn = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!turn) return;
    const k = (networks.indexOf(network) + turn + networks.length) % networks.length;
    select(k);
    tabs[k].focus();
  });
  // The notebook has shortcuts of its own (b makes a cell); Tab and Escape stay the way out.
  root.addEventListener("keydown", (event) => {
    if (event.key !== "Tab" && event.key !== "Escape") event.stopPropagation();
  });

  for (const panel of [input, output]) {
    const point = (event) => {
      const [row, col] = panel.at(event);
      choose(panel === input ? network.nearest(row, col)
        : { row: clamp(Math.floor(row), network.height), col: clamp(Math.floor(col), network.width) });
    };
    panel.sheet.addEventListener("pointermove", point);
    panel.sheet.addEventListener("pointerdown", point);
    panel.sheet.addEventListener("click", (event) => (event.shiftKey ? togglePin : ask)());
  }
  slider.addEventListener("input", () => show(Number(slider.value)));

  // -- start, and stop
  input.paint(image);
  input.caption.textContent = `Input, ${image.height} × ${image.width}`;
  el.replaceChildren(root);
  select(0);
  const watcher = new ResizeObserver(draw);
  watcher.observe(root);
  model.on("change:answer", showAnswer);
  return () => {
    watcher.disconnect();
    model.off("change:answer", showAnswer);
  };
}

export default { render };
