"""Opens the built site in a browser: every page at the widths of a phone and a desk, searches, the explorer.

No page may write to the console, ask another host for anything, or be wider than a phone. The page that
explores processes must show the numbers of the library. It needs Chromium or Chrome, and the extra [browser].

    make docs-browser
"""

import functools
import http.server
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import jax
import jax.numpy as jnp
import numpy as np
from explore import count_categories, make_betas, make_process, measure_histogram
from playwright.sync_api import Browser, Page, sync_playwright
from public_names import ROOT
from queries import list_unanswered, read_queries

import d3pm_jax as d3pm

SITE = ROOT / "build" / "site"
PHONE, DESK = 390, 1280
Theme = Literal["light", "dark"]
CHOICES = (
    # process, schedule, levels, T, t, x_0, x_t
    ("uniform", "cosine", 8, 50, 20, 1, 7),
    ("uniform", "information", 6, 25, 1, 0, 0),
    ("uniform", "linear", 4, 100, 100, 3, 2),
    ("absorbing", "reciprocal", 8, 100, 37, 2, 8),
    ("absorbing", "cosine", 4, 25, 25, 0, 4),
    ("gaussian", "linear", 6, 50, 30, 5, 1),
    ("gaussian", "linear", 8, 25, 12, 4, 4),
)

# How wide a page is, with what stands out of its text.
MEASURE_WIDTH = """() => {
  const ends = [...document.querySelectorAll("article, main")].map(
    (text) => text.getBoundingClientRect().left + text.scrollWidth);
  return Math.max(document.documentElement.scrollWidth, ...ends);
}"""


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files, and writes no line for each."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """Serves a folder, and yields its address."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Starts the Chromium or Chrome that is installed."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("there is no chromium or google-chrome on the path: install one of them")
    with sync_playwright() as playwright:
        # In a container, where all is done by root, Chromium starts in no other way.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watch:
    """Opens pages in a browser, and collects what is wrong with them."""

    def __init__(self, browser: Browser, site: str):
        self.browser = browser
        self.site = site
        self.defects: list[str] = []

    def open(self, path: str, width: int, theme: Theme = "light") -> Page:
        """Opens a page in a window of its own, which stays open, and listens to it."""
        page = self.browser.new_page(viewport={"width": width, "height": 844}, color_scheme=theme)
        page.on("console", lambda message: self.report(path, width, f"console: {message.text}"))
        page.on("pageerror", lambda error: self.report(path, width, f"error: {error}"))
        page.on("request", lambda request: self.check_request(path, width, request.url))
        page.goto(f"{self.site}/{path}", wait_until="networkidle")
        return page

    def report(self, path: str, width: int, defect: str) -> None:
        self.defects.append(f"{path} at {width} px: {defect}")

    def check_request(self, path: str, width: int, address: str) -> None:
        if not address.startswith((self.site, "data:", "blob:")):
            self.report(path, width, f"asks for {address}")

    def check_width(self, page: Page, path: str, width: int) -> None:
        """Reports a page that has to be moved sideways to be read; blocks of code and tables may be moved."""
        for frame in page.frames:
            needed = frame.evaluate(MEASURE_WIDTH)
            there = frame.evaluate("innerWidth")
            if needed > there:
                self.report(path, width, f"the page is {needed} px wide where there are {there}")


def check_pages(watch: Watch) -> None:
    paths = sorted(str(file.relative_to(SITE)) for file in SITE.rglob("*.html"))
    for path in paths:
        for width in (PHONE, DESK):
            page = watch.open(path, width)
            watch.check_width(page, path, width)
            page.close()
    print(f"{len(paths)} pages at {PHONE} and {DESK} px")


def check_search(watch: Watch) -> None:
    first_hits = {}
    for query in [*read_queries(), "no such words"]:
        page = watch.open(f"search.html?q={quote(query)}", DESK)
        page.wait_for_function("/finished|did not match/.test(document.body.innerText)")
        page.wait_for_load_state("networkidle")  # the pages from which the search quotes
        links = page.locator("ul.search a")
        href = links.first.get_attribute("href") if links.count() else ""
        first_hits[query] = (href or "").replace(".html", "")
        page.close()
    watch.defects += list_unanswered(first_hits)


def compute_shown(
    name: str, schedule: str, levels: int, T: int, t: int, x0: int, xt: int
) -> dict[str, list[float]]:
    """Computes what the page must show, each by a call of the library for this choice alone."""
    with jax.enable_x64(True):
        process = make_process(name, make_betas(name, schedule, levels, T), levels)
        K = count_categories(name, levels)
        p0 = jnp.asarray(measure_histogram(name, levels))
        data = jnp.arange(levels)
        log_q = process.log_q_probs(data, jnp.asarray(t))  # [levels, K]
        marginal = process.log_push(jnp.log(p0), jnp.asarray(t))
        information = p0[:levels] @ d3pm.kl(log_q, jnp.broadcast_to(marginal, log_q.shape))
        posterior = d3pm.q_posterior(process, jnp.asarray(x0), jnp.asarray(xt), jnp.asarray(t))

        start, end = jnp.meshgrid(data, jnp.arange(K), indexing="ij")
        logits = jnp.broadcast_to(jnp.log(p0), (*start.shape, K))
        losses = d3pm.hybrid(process, logits, start, end, jnp.asarray(t), 0.0, belief="leave_one_out")
        p_pair = p0[:levels, None] * jnp.exp(log_q)
        kl, ce = (float(jnp.where(p_pair > 0, p_pair * x, 0).sum()) for x in (losses.kl, losses.ce))
        alpha_bar = [float(process.alpha_bar[t])] if name != "gaussian" else []
        return {
            "alpha_bar": alpha_bar,
            "unchanged": [float(p0[:levels] @ jnp.exp(jnp.diagonal(log_q)))],
            "information": [float(information) / np.log(2)],
            "entropy": [float(jax.scipy.special.entr(p0).sum()) / np.log(2)],
            "term": [kl / np.log(2)],
            "weight": [kl / ce],
            "posterior": (100 * jnp.exp(posterior)).tolist(),
        }


def choose(page: Page, name: str, schedule: str, levels: int, T: int, t: int, x0: int, xt: int) -> None:
    """Makes the choices on the page, the step by the keyboard."""
    for field, value in {"process": name, "schedule": schedule, "levels": levels, "steps": T}.items():
        page.select_option(f"#{field}", str(value))
    page.select_option("#x0", str(x0))
    page.select_option("#xt", str(xt))
    page.press("#t", "Home")
    for _ in range(t - 1):
        page.press("#t", "ArrowRight")


def read_shown(page: Page) -> dict[str, list[float]]:
    """Reads the numbers that the page shows."""
    shown = {}
    for field in ("alpha_bar", "unchanged", "information", "entropy", "term", "weight"):
        text = page.inner_text(f"#{field}") if page.is_visible(f"#{field}") else ""
        shown[field] = [float(text.split()[0])] if text else []
    shown["posterior"] = [float(text) for text in page.locator("#bars .value").all_text_contents()]
    return shown


def agree(shown: list[float], expected: list[float], atol: float) -> bool:
    return len(shown) == len(expected) and np.allclose(shown, expected, rtol=0, atol=atol)


def check_explorer(watch: Watch) -> None:
    path = "explorer.html"
    page = watch.open(path, DESK)
    for choice in CHOICES:
        choose(page, *choice)
        shown = read_shown(page)
        expected = compute_shown(*choice)
        for key, numbers in expected.items():
            # Half of the last digit that is shown, and a little because the page has rounded numbers.
            tolerance = 0.051 if key == "posterior" else 0.000051
            if not agree(shown[key], numbers, tolerance):
                watch.report(path, DESK, f"{choice}: {key} is {shown[key]}, the library has {numbers}")
        row = [float(text) for text in page.locator("tr.now td").all_text_contents()]
        if not agree(row, expected["posterior"], 0.551):
            watch.report(path, DESK, f"{choice}: the row of the matrix is {row}")
    page.close()

    # What the page in the site shows is there at both widths, in both modes, and fits its frame.
    for width in (PHONE, DESK):
        page = watch.open("explore.html", width)
        frame = page.frame(url="**/explorer.html")
        assert frame is not None
        frame.wait_for_selector("#bars .value")
        heights = frame.evaluate("[document.documentElement.scrollHeight, innerHeight]")
        if heights[0] > heights[1]:
            watch.report(
                "explore.html", width, f"the frame is {heights[1]} px high, its content {heights[0]}"
            )
        colours = set()
        for theme in ("light", "dark"):
            page.evaluate(f"document.body.dataset.theme = {json.dumps(theme)}")
            page.wait_for_timeout(100)
            colours.add(frame.evaluate("getComputedStyle(document.body).backgroundColor"))
        if len(colours) != 2:
            watch.report("explore.html", width, f"light and dark have the same background, {colours}")
        page.close()
    print(f"{len(CHOICES)} choices of the explorer")


def main() -> None:
    with serve_folder(SITE) as address, open_browser() as browser:
        watch = Watch(browser, address)
        check_explorer(watch)
        check_search(watch)
        check_pages(watch)
    sys.exit("\n".join(watch.defects) or 0)


if __name__ == "__main__":
    main()
