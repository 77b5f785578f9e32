// The browser's half of experiments/bender.py: thin-plate spline, encoder and decoder, as in experiments/dense_transformer.py.

const MARK = "#d55e00";
const REACH = 0.8; // how far a point goes from its place, where 2 is the width of the picture
const ZOOM = 3; // pixels on screen for one of the picture

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function floats(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

// ---- what experiments/dense_transformer.py does ------------------------------------------------------------------------------

// positions = spline @ targets: [x, y, x, y, ...] for all nodes
export function positionsOf(spline, targets) {
  const count = targets.length / 2;
  const nodes = spline.length / count;
  const found = new Float32Array(2 * nodes);
  for (let node = 0; node < nodes; node++)
    for (let k = 0; k < count; k++) {
      found[2 * node] += spline[node * count + k] * targets[2 * k];
      found[2 * node + 1] += spline[node * count + k] * targets[2 * k + 1];
    }
  return found;
}

// The four pixels round a position, each with its weight.
function corners(x, y, side) {
  const [right, down] = [x, y].map((at) => ((Math.min(Math.max(at, -1), 1) + 1) / 2) * (side - 1));
  const [left, top] = [right, down].map((at) => Math.min(Math.floor(at), side - 2));
  const [a, b] = [right - left, down - top];
  const first = top * side + left;
  return [
    [first, (1 - a) * (1 - b)],
    [first + 1, a * (1 - b)],
    [first + side, (1 - a) * b],
    [first + side + 1, a * b],
  ];
}

export function encode(picture, positions, side) {
  return picture.map((_, node) => {
    let sum = 0;
    for (const [pixel, weight] of corners(positions[2 * node], positions[2 * node + 1], side))
      sum += weight * picture[pixel];
    return sum;
  });
}

export function decode(picture, positions, side) {
  const [total, weights] = [new Float32Array(picture.length), new Float32Array(picture.length)];
  picture.forEach((value, node) => {
    for (const [pixel, weight] of corners(positions[2 * node], positions[2 * node + 1], side)) {
      total[pixel] += weight * value;
      weights[pixel] += weight;
    }
  });
  const written = (pixel) => weights[pixel] > 1e-5;
  const back = picture.map((own, pixel) => (written(pixel) ? total[pixel] / weights[pixel] : own));
  return { back, holes: picture.filter((_, pixel) => !written(pixel)).length };
}

// Cells of the grid that lie face down: their corners turn the other way round.
export function folded(positions, side) {
  let count = 0;
  for (let row = 0; row + 1 < side; row++)
    for (let col = 0; col + 1 < side; col++) {
      const [a, b, c] = [row * side + col, row * side + col + 1, (row + 1) * side + col];
      const [bx, by] = [positions[2 * b] - positions[2 * a], positions[2 * b + 1] - positions[2 * a + 1]];
      const [cx, cy] = [positions[2 * c] - positions[2 * a], positions[2 * c + 1] - positions[2 * a + 1]];
      count += bx * cy - by * cx <= 0;
    }
  return count;
}

// ---- the widget -------------------------------------------------------------------------------------------

function render({ model, el }) {
  const { side, ...texts } = model.get("contents");
  const { image, spline, control } = Object.fromEntries(Object.entries(texts).map(([k, v]) => [k, floats(v)]));
  const targets = control.slice();
  const count = control.length / 2;
  let chosen = 5;

  const panel = (title, label) => {
    const canvas = element("canvas", { width: side * ZOOM, height: side * ZOOM, role: "img", "aria-label": label });
    canvas.style.cssText = "width: 100%; display: block; touch-action: none;";
    return { canvas, figure: element("figure", {}, canvas, element("figcaption", { textContent: title })) };
  };
  const grid = panel("where the nodes look: drag a point", "the picture, the grid and its sixteen points");
  const bent = panel("encoder: bent", "the bent picture");
  const back = panel("decoder: bent back", "the picture bent back");
  grid.canvas.style.cursor = "grab";

  const names = [...control.keys()].slice(0, count).map((k) => `row ${Math.floor(k / 4) + 1}, column ${(k % 4) + 1}`);
  const options = names.map((textContent, value) => element("option", { textContent, value }));
  const which = element("select", { onchange: () => choose(Number(which.value)) }, ...options);
  const sliders = ["to the right", "down"].map((label, axis) => {
    const input = element("input", { type: "range", min: -REACH, max: REACH, step: 0.02 });
    input.oninput = () => move(axis, Number(input.value));
    return { input, label: element("label", { className: "patch-slider" }, `moved ${label} `, input) };
  });
  const readout = element("p", { className: "patch-readout", "aria-live": "polite" });
  const home = () => targets.set(control);
  const random = () => targets.set(control.map((at) => at + 0.2 * (Math.random() + Math.random() + Math.random() - 1.5)));
  const button = (textContent, act) => element("button", { textContent, type: "button", onclick: () => (act(), draw()) });
  const root = element(
    "div",
    { className: "patch-inspector" },
    element("div", { className: "patch-panels" }, grid.figure, bent.figure, back.figure),
    element("label", { className: "patch-slider" }, "point ", which),
    ...sliders.map(({ label }) => label),
    element("div", { className: "patch-buttons" }, button("All points home", home), button("Random", random)),
    readout,
  );
  root.addEventListener("keydown", (event) => {
    if (event.key !== "Tab" && event.key !== "Escape") event.stopPropagation(); // the notebook has shortcuts too
  });

  const onScreen = (at) => (((at + 1) / 2) * (side - 1) + 0.5) * ZOOM;
  const paint = ({ canvas }, picture) => {
    const small = new OffscreenCanvas(side, side);
    const pixels = new Uint8ClampedArray(4 * picture.length);
    picture.forEach((value, k) => pixels.set([255 * value, 255 * value, 255 * value, 255], 4 * k));
    small.getContext("2d").putImageData(new ImageData(pixels, side), 0, 0);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, side * ZOOM, side * ZOOM);
    return context;
  };

  function draw() {
    const positions = positionsOf(spline, targets);
    const encoded = encode(image, positions, side);
    const decoded = decode(encoded, positions, side);
    paint(bent, encoded);
    paint(back, decoded.back);
    const context = paint(grid, image);
    context.strokeStyle = MARK;
    context.lineWidth = 1.5;
    for (let line = 0; line < side; line += 5)
      for (const node of [(k) => line * side + k, (k) => k * side + line]) {
        context.beginPath();
        for (let k = 0; k < side; k++) context.lineTo(onScreen(positions[2 * node(k)]), onScreen(positions[2 * node(k) + 1]));
        context.stroke();
      }
    for (let k = 0; k < count; k++) {
      context.beginPath();
      context.arc(onScreen(targets[2 * k]), onScreen(targets[2 * k + 1]), k === chosen ? 9 : 6, 0, 7);
      context.fillStyle = k === chosen ? MARK : "white";
      context.strokeStyle = k === chosen ? "white" : "black";
      context.lineWidth = 2;
      context.fill();
      context.stroke();
    }
    which.value = chosen;
    sliders.forEach(({ input }, axis) => (input.value = targets[2 * chosen + axis] - control[2 * chosen + axis]));
    const [squares, all] = [image.map((value, k) => (value - decoded.back[k]) ** 2), image.map((value) => value ** 2)];
    const off = Math.sqrt(squares.reduce((a, b) => a + b) / all.reduce((a, b) => a + b));
    readout.textContent =
      `Bent back, the picture is off by ${(100 * off).toFixed(1)} %. ` +
      `${decoded.holes} of ${image.length} pixels were written by nobody, ` +
      `and ${folded(positions, side)} of ${(side - 1) ** 2} cells are folded over.`;
  }
  function choose(k) {
    chosen = k;
    draw();
  }
  function move(axis, by) {
    targets[2 * chosen + axis] = control[2 * chosen + axis] + Math.min(Math.max(by, -REACH), REACH);
    draw();
  }

  const at = (event) => {
    const box = grid.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((share) => 2 * share - 1);
  };
  grid.canvas.addEventListener("pointerdown", (event) => {
    const [x, y] = at(event);
    const away = (k) => Math.hypot(targets[2 * k] - x, targets[2 * k + 1] - y);
    choose([...names.keys()].reduce((best, k) => (away(k) < away(best) ? k : best)));
    grid.canvas.setPointerCapture(event.pointerId);
  });
  grid.canvas.addEventListener("pointermove", (event) => {
    if (!grid.canvas.hasPointerCapture(event.pointerId)) return;
    at(event).forEach((place, axis) => move(axis, place - control[2 * chosen + axis]));
  });

  el.append(root);
  draw();
}

export default { render };
