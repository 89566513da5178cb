"""The page in headless Chromium: filters, sorting, folds, deep links, light and dark, phone and print."""

import base64
import shutil

import pytest
from page_models import hostile_report, model_report, tall_report

webdriver = pytest.importorskip(
    "selenium.webdriver", reason="selenium drives the browser: pip install selenium"
)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="there is no Chromium with its driver: apt-get install chromium chromium-driver",
)


def started():
    """A browser, which keeps what its console says."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_window_size(1280, 1000)
    emulate(driver, "light")
    return driver


@pytest.fixture(scope="module")
def browser():
    driver = started()
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report():
    return model_report()


@pytest.fixture
def opened(browser, report, tmp_path):
    """Opens a report; at the end the console must be empty."""
    path = report.to_html(tmp_path / "report.html")

    def show(fragment="", of=path):
        browser.get("about:blank")
        browser.get(f"file://{of}{fragment}")
        return browser

    yield show
    assert browser.get_log("browser") == []
    emulate(browser, "light")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def emulate(browser, scheme, media=""):
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},  # a page that scrolls cannot be clicked at
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def wait(browser):
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, 5)


def shown(browser):
    """The numbers of the sites that are to be seen, in the order of the page."""
    return browser.execute_script(
        "return [...document.querySelectorAll('#table > tbody')].filter(e => e.checkVisibility())"
        ".map(e => Number(e.dataset.number))"
    )


def choose(browser, name, value):
    browser.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('input', {bubbles: true}))",
        name,
        value,
    )


def numbers(report, keep):
    return [number for number, site in enumerate(report.sites, 1) if keep(site)]


@pytest.mark.parametrize(
    ("name", "value", "keep"),
    [
        ("status", "refused", lambda site: site.status == "refused"),
        ("target", "expmap0", lambda site: site.target == "expmap0"),
        ("code", "dropout", lambda site: site.code == "dropout"),
        ("module", "clamped", lambda site: site.module_path == "clamped"),
        ("search", "DENOMINATOR Clamped", lambda site: site.status == "near miss"),
    ],
)
def test_filters(opened, report, name, value, keep):
    browser = opened()
    kept = numbers(report, keep)
    assert 0 < len(kept) < len(report.sites)
    choose(browser, name, value)
    assert shown(browser) == kept
    assert browser.find_element("id", "shown").text == f"{len(kept)} of {len(report.sites)} sites"
    browser.find_element("css selector", ".filters button[type=reset]").click()
    wait(browser).until(lambda b: len(shown(b)) == len(report.sites))


def test_a_module_of_the_tree_filters(opened, report):
    browser = opened()
    browser.find_element("css selector", ".module[data-module=tangent]").click()
    assert shown(browser) == numbers(report, lambda site: site.module_path == "tangent")
    pressed = browser.find_elements("css selector", ".module[aria-pressed=true]")
    assert [each.get_attribute("data-module") for each in pressed] == ["tangent"]
    browser.find_element("css selector", ".module[data-module='']").click()
    assert len(shown(browser)) == len(report.sites)


@pytest.mark.parametrize("column", ["number", "status", "target", "module", "source", "code", "saving"])
def test_sorting_by_the_keyboard(opened, report, column):
    browser = opened()
    button = browser.find_element("css selector", f".sort[data-sort={column}]")
    orders = []
    for _ in range(2):
        button.send_keys(webdriver.Keys.ENTER)
        head = browser.find_element("css selector", f"th:has([data-sort={column}])")
        orders.append((head.get_attribute("aria-sort"), shown(browser)))
    assert {direction for direction, _ in orders} == {"ascending", "descending"}
    assert all(sorted(order) == list(range(1, len(report.sites) + 1)) for _, order in orders)
    values = {number: _value(site, number, column) for number, site in enumerate(report.sites, 1)}
    for direction, order in orders:
        found = [values[number] for number in order]
        assert found == sorted(found, reverse=direction == "descending")
    assert len(browser.find_elements("css selector", "th[aria-sort]")) == 1


def _value(site, number, column):
    won = (site.seconds_before or 0.0) - (site.seconds_after or 0.0)
    return {
        "number": number,
        "status": site.status,
        "target": site.target,
        "module": site.module_path,
        "source": int(site.source.rpartition(":")[2]),  # of one file
        "code": site.code,
        "saving": max(0.0, won),
    }[column]


def test_rows_open_and_close(opened, report):
    browser = opened()
    detail = browser.find_element("id", "detail-1")
    button = browser.find_element("css selector", "#site-1 .open")
    assert not detail.is_displayed() and button.get_attribute("aria-expanded") == "false"
    button.send_keys(webdriver.Keys.SPACE)
    assert detail.is_displayed() and button.get_attribute("aria-expanded") == "true"
    button.click()
    assert not detail.is_displayed()
    browser.find_element("id", "unfold").click()
    assert all(each.is_displayed() for each in browser.find_elements("css selector", "tr.detail"))


def test_a_deep_link_opens_its_site_through_a_filter(opened, report):
    browser = opened("#site-2")
    assert browser.find_element("id", "detail-2").is_displayed()
    assert not browser.find_element("id", "detail-1").is_displayed()
    assert browser.switch_to.active_element.get_attribute("id") == "site-2"
    choose(browser, "search", "no such thing")
    assert shown(browser) == []
    browser.execute_script("location.hash = '#site-3'")
    wait(browser).until(lambda b: b.find_element("id", "detail-3").is_displayed())
    assert len(shown(browser)) == len(report.sites)
    # A link to what is not there is no error.
    browser.execute_script("location.hash = '#site-9999'")


def test_rewrites_are_highlighted_on_both_sides_and_the_rest_folds(opened, report, tmp_path):
    browser = opened(of=tall_report(report, 3).to_html(tmp_path / "tall.html"))
    colours = {
        side: browser.find_element("css selector", f".changed .{side}").value_of_css_property(
            "background-color"
        )
        for side in ("old", "new")
    }
    plain = browser.find_element("css selector", ".sides pre").value_of_css_property("background-color")
    assert len({*colours.values(), plain}) == 3
    mark = browser.find_element("css selector", ".changed .new .marks a")
    mark.click()
    number = mark.get_attribute("href").rpartition("-")[2]
    wait(browser).until(lambda b: b.find_element("id", f"detail-{number}").is_displayed())
    fold = browser.find_element("css selector", ".fold details")
    inside = fold.find_element("css selector", "td")
    assert not inside.is_displayed()
    fold.find_element("css selector", "summary").send_keys(webdriver.Keys.ENTER)
    assert inside.is_displayed()


def test_light_and_dark(opened):
    emulate(opened(), "dark")
    browser = opened()

    def dark():
        colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour.strip("rgb()").split(",")) < 200

    button = browser.find_element("id", "theme")
    assert dark() and button.text == "Theme: as the system"
    button.click()
    assert not dark() and button.text == "Theme: light"
    browser.refresh()
    assert not dark(), "what was chosen is kept"
    button = browser.find_element("id", "theme")
    button.click()
    emulate(browser, "light")
    assert dark() and button.text == "Theme: dark"
    button.click()
    assert not dark()


def contrast(one, other):
    def light(colour):
        parts = [int(part) / 255 for part in colour]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(opened, scheme):
    emulate(opened(), scheme)
    browser = opened()
    browser.find_element("id", "unfold").click()
    pairs = browser.execute_script(
        """
        const found = {};
        for (const e of document.querySelectorAll('body *')) {
          const written = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
          if (e.closest('svg') || !e.checkVisibility() || !written) continue;
          let behind = e;
          while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)' && behind.parentElement)
            behind = behind.parentElement;
          const pair = [getComputedStyle(e).color, getComputedStyle(behind).backgroundColor];
          found[pair] = [pair, e.className + ' ' + e.textContent.slice(0, 30)];
        }
        return Object.values(found);
        """
    )
    assert len(pairs) > 4
    for (ink, paper), what in pairs:
        colours = [
            [int(float(part)) for part in each.strip("rgba()").split(",")[:3]] for each in (ink, paper)
        ]
        assert contrast(*colours) >= 4.5, (what, ink, paper)


def test_whatever_can_be_used_has_a_name_for_screen_readers(opened):
    browser = opened()
    browser.find_element("id", "unfold").click()
    used = {"button", "link", "textbox", "searchbox", "combobox", "image", "table", "columnheader"}

    def tree(browser):
        """What a screen reader is told of; it is made a moment after the page has changed."""
        nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        kept = [node for node in nodes if not node.get("ignored") and node["role"]["value"] in used]
        return kept if used <= {node["role"]["value"] for node in kept} else None

    nodes = wait(browser).until(tree)
    assert [node for node in nodes if not node.get("name", {}).get("value")] == []
    # The first thing that the tabulator key reaches skips the sidebar.
    browser.find_element("css selector", "body").send_keys(webdriver.Keys.TAB)
    first = opened()
    first.find_element("css selector", "body").send_keys(webdriver.Keys.TAB)
    assert first.switch_to.active_element.text == "Skip to the report"


@pytest.mark.parametrize("width", [320, 390, 800])
def test_a_phone_scrolls_in_one_direction(opened, width):
    browser = opened()
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.find_element("id", "unfold").click()
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    small = browser.execute_script(
        "return [...document.querySelectorAll('button.open, .filters input, .filters select')]"
        ".filter(e => e.getBoundingClientRect().height < 30).length"
    )
    assert width > 400 or small == 0


def test_it_prints_without_controls_in_light(opened):
    browser = opened()
    emulate(browser, "dark", media="print")
    for part in ("nav", ".filters", "#theme"):
        assert not browser.find_element("css selector", part).is_displayed()
    assert (
        browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        == "rgb(255, 255, 255)"
    )
    emulate(browser, "light")
    assert base64.b64decode(browser.print_page()).startswith(b"%PDF")


def test_nothing_of_the_model_is_run(opened, tmp_path):
    browser = opened("#site-1", of=hostile_report().to_html(tmp_path / "hostile.html"))
    browser.find_element("id", "unfold").click()
    assert browser.execute_script("return window.broken === undefined")
    assert browser.find_elements("css selector", "img") == []
    assert "<script>window.broken=1</script>" in browser.find_element("id", "site-2").text


def test_all_is_there_without_scripts(opened, report):
    browser = opened()
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened()
        details = browser.find_elements("css selector", "tr.detail")
        assert len(details) == len(report.sites) and all(each.is_displayed() for each in details)
        assert not browser.find_element("css selector", ".filters").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
