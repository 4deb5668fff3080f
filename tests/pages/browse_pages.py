"""Open pages of `vj.export_page` in a headless Chromium: screenshots, messages of the console, milliseconds.

By hand: `pip install playwright`, a Chromium such as Debian's, and `python tests/pages/browse_pages.py PAGE...`. Each
page is opened on a desk, on a desk with dark colours, and on a phone with touch. The first plane or slider is dragged,
with a screenshot before and after. The milliseconds end when the image is in its canvas, which the browser shows with
the next frame. They start at the input event, which a browser may hold back until a frame, or at the first handler.

Exit status: 0, or 1 if a drag leaves the image as it was or the console has a message.
"""

import argparse
import sys
from pathlib import Path
from statistics import median, quantiles

from playwright.sync_api import sync_playwright

DEVICES = {
    "desk": {"viewport": {"width": 1280, "height": 640}},
    "dark": {"viewport": {"width": 1280, "height": 640}, "color_scheme": "dark"},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "has_touch": True,
        "is_mobile": True,
        "device_scale_factor": 2,
    },
}
MOVES = 100
LISTEN = """() => {
  window.times = { "from the event": [], "in the page": [] };
  let start = 0;
  const type = document.querySelector(".top") ? "pointermove" : "input";
  addEventListener(type, () => (start = performance.now()), true);  // before the page's handlers
  addEventListener(type, (event) => {  // after them
    const end = performance.now();
    window.times["from the event"].push(end - event.timeStamp);
    window.times["in the page"].push(end - start);
  });
}"""
IMAGE = """() => document.querySelector(".big").toDataURL()"""


def points_over(target):
    """Points on a straight line over a plane, or along a slider from its middle on."""
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    is_plane = target.evaluate("node => node.tagName") == "CANVAS"
    (a, b), (c, d) = ((0.25, 0.35), (0.75, 0.6)) if is_plane else ((0.5, 0.5), (0.8, 0.5))
    shares = [((1 - n / MOVES) * a + n / MOVES * c, (1 - n / MOVES) * b + n / MOVES * d) for n in range(MOVES + 1)]
    return [(box["x"] + right * box["width"], box["y"] + down * box["height"]) for right, down in shares]


def drag(page, touch):
    """Drag over the first plane, or along the first slider that is visible; by a mouse, also pin two points a plane."""
    points = points_over(page.locator(".top, input[type=range]:visible").first)
    if touch:
        session = page.context.new_cdp_session(page)
        for kind, (x, y) in [("touchStart", points[0]), *(("touchMove", point) for point in points)]:
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        return
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points:
        page.mouse.move(*point)
    page.mouse.up()
    for plane in page.locator(".top").all():
        for point in points_over(plane)[::MOVES]:
            page.mouse.click(*point)


def browse(browser, path, device, out):
    """Drag in a page; return whether the image changed and the console was silent."""
    context = browser.new_context(**DEVICES[device])
    page, messages = context.new_page(), []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(path.resolve().as_uri())
    page.wait_for_timeout(1_000)
    page.screenshot(path=out / f"{path.stem}_{device}_before.png", full_page=True)
    page.evaluate(LISTEN)
    before = page.evaluate(IMAGE)
    drag(page, DEVICES[device].get("has_touch", False))
    page.wait_for_timeout(500)
    changed = page.evaluate(IMAGE) != before
    times = page.evaluate("() => window.times")
    page.screenshot(path=out / f"{path.stem}_{device}_after.png", full_page=True)
    context.close()
    texts = [
        f"{start}: median {median(t):.1f}, 95 % below {quantiles(t, n=20)[-1]:.1f} ms" for start, t in times.items()
    ]
    print(f"{path.name}, {device}: image {'changed' if changed else 'UNCHANGED'}; {'; '.join(texts)}", *messages)
    return changed and not messages


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser")
    parser.add_argument("--out", type=Path, default=Path("runs/pages"), help="folder of the screenshots")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        results = [browse(browser, path, device, options.out) for path in options.pages for device in DEVICES]
    sys.exit(not all(results))
