"""How soon does the inspector answer a pointer and a click?

A real browser without a window shows the inspector of a U-Net with four levels on a 256x256 image. Its
kernel is this process: each message is written as JSON and read again, as on its way to a notebook. Times
are taken in the browser. "Drawn" is when the handlers have run and text and drawing are done; "shown" is when
the next frame has been handed to the screen.
"""

import json
import re
import shutil
import statistics
import tempfile
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright
from receptive_field import SIDE, UNet

from pixelpatch import Inspector

MODEL = """
state.contents.live = true;
const handlers = [];
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
Object.assign(window, { delay: 0, sent: 0 });
const model = {
  get: (key) => state[key], set: (key, value) => { state[key] = value; },
  on: (_, handler) => handlers.push(handler), off() {},
  async save_changes() {
    window.sent++;
    await wait(window.delay);
    const answer = await kernel(JSON.stringify(state.request));
    await wait(window.delay);
    state.answer = JSON.parse(answer);
    handlers.forEach((handler) => handler());
  },
};
"""
TOOLS = """
const [input, output] = [...document.querySelectorAll(".patch-stack canvas:last-child")];
const shown = () => new Promise((done) => requestAnimationFrame(() => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => done(performance.now());  // comes after the frame is painted
  port2.postMessage(null);
}));
const fire = (type, row, col) => {
  const { left, top, width, height } = output.getBoundingClientRect();
  const place = { clientX: left + (width * (col + 0.5)) / 256, clientY: top + (height * (row + 0.5)) / 256 };
  output.dispatchEvent(new PointerEvent(type, { bubbles: true, ...place }));
};
"""
HOVER = """async (places) => {
  TOOLS
  const times = [];
  for (const [row, col] of places) {
    await new Promise((done) => setTimeout(done, 40 * Math.random()));  // at any moment of a frame
    const start = performance.now();
    fire("pointermove", row, col);
    document.body.offsetHeight;  // the text is laid out
    input.getContext("2d").getImageData(0, 0, 1, 1);  // the drawing is done
    times.push([performance.now() - start, (await shown()) - start]);
  }
  return times;
}"""
CLICK = """async (places) => {
  TOOLS
  const times = [];
  for (const [row, col] of places) {
    const start = performance.now();
    fire("pointerdown", row, col);
    fire("click", row, col);
    while (!document.querySelector(".patch-answer").textContent.includes(`pixel (${row}, ${col}). Proof`)) {
      if (performance.now() - start > 5000) throw new Error("no answer to a click");
      await new Promise((done) => setTimeout(done));
    }
    times.push((await shown()) - start);
  }
  return times;
}"""


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    inspector = Inspector(torch.rand(SIDE, SIDE), {"U-Net": UNet().eval()})
    hovers, clicks = torch.randint(SIDE, (100, 2)).tolist(), torch.randint(40, SIDE - 40, (15, 2)).tolist()

    def kernel(request):
        inspector.request = json.loads(request)
        return json.dumps(inspector.answer)

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        return print("The inspector was not measured: no Chromium on this machine.")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = Path(folder) / "page.html"
        inspector.to_html(page_file)
        text = re.sub(r"^const model = .*$", lambda _: MODEL, page_file.read_text(), flags=re.M)
        page_file.write_text(text)
        page = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]).new_page()
        page.expose_function("kernel", kernel)
        page.goto(page_file.as_uri())
        page.wait_for_selector(".patch-output")

        def run(script, places):
            return page.evaluate(script.replace("TOOLS", TOOLS), places)

        rows = []
        run(HOVER, hovers[:20]), run(CLICK, clicks[:2])  # what is slow only the first time
        for delay in (0, 200):
            page.evaluate("delay => Object.assign(window, { delay, sent: 0 })", delay)
            drawn, shown = zip(*run(HOVER, hovers), strict=True)
            rows += [("hover, until drawn", delay, drawn, 16), ("hover, until shown", delay, shown, 16)]
            assert page.evaluate("window.sent") == 0, "a hover asked the kernel"
        page.evaluate("window.delay = 0")
        rows += [("click, until the answer is shown", 0, run(CLICK, clicks), 250)]
    print(f"U-Net, four levels, width 8, {SIDE}x{SIDE}; torch {torch.__version__}, one thread\n")
    print("| | delay of each message (ms) | median (ms) | longest (ms) | aim for the median (ms) |")
    print("| --- | --- | --- | --- | --- |")
    for name, delay, times, aim in rows:
        print(f"| {name} | {delay} | {statistics.median(times):.1f} | {max(times):.1f} | {aim} |")


if __name__ == "__main__":
    main()
