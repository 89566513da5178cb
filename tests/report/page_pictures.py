"""Pictures of the report page for the gallery, to be looked at: `python tests/report/page_pictures.py [FOLDER]`."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from page_models import model_report
from test_page_browser import emulate, started

# Name -> width, height, colours, what is shown at the top, medium.
PICTURES = {
    "report_light": (1280, 900, "light", "", "screen"),
    "report_dark": (1280, 1000, "dark", "#site-1", "screen"),
    "report_graphs": (1280, 760, "light", "#graphs", "screen"),
    "report_phone": (390, 900, "light", "#site-1", "screen"),
    "report_print": (1000, 1000, "light", "", "print"),
}


def take(folder: Path) -> list[Path]:
    """Write every picture to a folder and return the files."""
    browser = started()
    files = []
    with tempfile.TemporaryDirectory() as page_folder:
        report = model_report()
        report.measured = {}  # the tests' is no measurement
        page = report.to_html(Path(page_folder) / "report.html")
        for name, (width, height, colours, fragment, medium) in PICTURES.items():
            size: dict[str, Any] = {
                "width": width,
                "height": height,
                "deviceScaleFactor": 1,
                "mobile": width < 500,
            }
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            emulate(browser, colours, medium)
            browser.get("about:blank")
            browser.get(f"file://{page}{fragment}")
            files.append(folder / f"{name}.png")
            browser.save_screenshot(str(files[-1]))
    browser.quit()
    return files


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2] / "docs" / "gallery")
    for file in take(target):
        print(file)
