"""Opens reports of runs in a browser, at the widths of a phone and a desk, in light and dark.

A report may not write to the console, ask another host for anything, or be wider than a phone. Nothing in it
may be cut on a desk, and axe must find no violation of accessibility. It needs Chromium or Chrome, and the
extra [browser].

    python docs/check_reports.py runs/*/report.html
"""

import sys
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from check_browser import DESK, PHONE, Watch, open_browser, serve_folder

# What is wider than the place that it is shown in: its rest can be reached by moving it, which nobody sees.
LIST_CUT = """() => [...document.querySelectorAll("body *")]
  .filter((element) => element.clientWidth && element.scrollWidth > element.clientWidth + 1)
  .filter((element) => getComputedStyle(element).overflowX !== "visible")
  .map((element) => `${element.tagName} shows ${element.clientWidth} of ${element.scrollWidth} px`)
"""


def list_violations(results: dict) -> list[str]:
    """Returns what axe has found, each with its elements."""
    return [
        f"axe: {violation['id']}: {violation['help']}: "
        + ", ".join(str(node["target"]) for node in violation["nodes"])
        for violation in results["violations"]
    ]


def check_report(watch: Watch, path: str) -> None:
    for theme in ("light", "dark"):
        for width in (PHONE, DESK):
            page = watch.open(path, width, theme)
            watch.check_width(page, path, width)
            if width == DESK:
                for cut in page.evaluate(LIST_CUT):
                    watch.report(path, width, cut)
            for violation in list_violations(Axe().run(page).response):
                watch.report(path, width, f"{theme}: {violation}")
            page.close()


def main() -> None:
    reports = [Path(argument).resolve() for argument in sys.argv[1:]]
    if not reports:
        sys.exit("name the reports: python docs/check_reports.py runs/*/report.html")
    defects = []
    with open_browser() as browser:
        for report in reports:
            with serve_folder(report.parent) as address:
                watch = Watch(browser, address)
                check_report(watch, report.name)
            defects += [f"{report.parent}: {defect}" for defect in watch.defects]
            print(f"{report}: {len(watch.defects)} defects")
    sys.exit("\n".join(defects) or 0)


if __name__ == "__main__":
    main()
