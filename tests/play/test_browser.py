"""The page in a real browser, as a person uses it.

The pictures in ``docs/images`` are taken here:

    LEARNED_ENVS_SCREENSHOTS=docs/images pytest tests/play/test_browser.py
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from learned_envs.play.session import Session
from tests.play.serving import serve

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (  # it runs as root in containers, and talks to nobody but this machine
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_COLOURS = """canvas => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A headless Chromium that is installed already."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (pip install playwright)"
    )
    if _CHROMIUM is None:
        pytest.skip("there is no Chromium (on Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=_CHROMIUM, args=list(_FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "Browser") -> Iterator["Page"]:
    """An empty page, on which no script may fail."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, color_scheme="dark")
    page = context.new_page()
    page.set_default_timeout(60_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    assert errors == []


def _open(page: "Page", address: str) -> None:
    page.goto(f"http://{address}/")
    _wait_for(page, "paused")


def _wait_for(page: "Page", state: str) -> None:
    page.wait_for_selector(f'#state[data-state="{state}"]')


def _wait_until(page: "Page", condition: Callable[[], bool]) -> None:
    """Wait from outside: the page's policy forbids scripts that are made of strings."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"it did not come about; the page says {page.inner_text('body')}"
        page.wait_for_timeout(20)


def _step(page: "Page") -> int:
    """The step that is shown."""
    found = re.match(r"step (\d+)", page.inner_text("#where"))
    assert found is not None
    return int(found[1])


def _steps(page: "Page", count: int) -> None:
    """Press N, and wait for the page each time."""
    for _ in range(count):
        expected = _step(page) + 1
        page.keyboard.press("n")
        _wait_until(page, lambda expected=expected: page.inner_text("#where") == f"step {expected}")


def _take_screenshot(page: "Page", name: str, folder: Path) -> None:
    """A picture for the docs, where they ask for it; it is taken in any case, and shows something."""
    path = Path(os.environ.get("LEARNED_ENVS_SCREENSHOTS", folder)) / name
    page.evaluate("document.querySelector('#toast').hidden = true")
    page.screenshot(path=path)
    assert path.stat().st_size > 20_000


def test_pong_is_played_beside_the_real_game(page: "Page", tmp_path: Path) -> None:
    """Keys reach both games; time runs and stands still; the past is looked at, forked and taken over; a film is written."""
    pytest.importorskip("ale_py")
    session = Session("LearnedPong-v0", seed=3)
    with serve(session, tmp_path / "films", speed=30) as address:
        _open(page, address)
        assert page.inner_text("#title") == "LearnedPong-v0"
        page.keyboard.press("m")
        page.keyboard.down("ArrowUp")
        page.wait_for_selector('#controls button:has-text("RIGHT")[aria-pressed="true"]')
        _steps(page, 3)
        assert [moment.action for moment in session.moments] == [None, 2, 2, 2]
        page.keyboard.down("Space")
        _steps(page, 1)
        page.keyboard.up("Space")
        page.keyboard.up("ArrowUp")
        _steps(page, 1)
        assert [moment.action for moment in session.moments[4:]] == [4, 0]
        pictures = [page.get_attribute(f"#{name} img", "src") for name in ("learned", "real")]
        assert all(picture and picture.startswith("data:image/png") for picture in pictures)
        assert pictures[0] != pictures[1]

        page.click("#play")
        _wait_for(page, "running")
        page.keyboard.down("s")  # W, A, S, D are arrows, too
        _wait_until(page, lambda: session.now.step >= 60)
        page.keyboard.up("s")
        page.keyboard.press("p")
        _wait_for(page, "paused")
        assert any(moment.action == 3 for moment in session.moments)

        end = _step(page)
        page.keyboard.press("Shift+BracketLeft")
        _wait_for(page, "looking")
        assert _step(page) == end - 10 and session.now.step == end
        page.keyboard.press("Escape")
        _wait_for(page, "paused")
        page.keyboard.press("Shift+BracketLeft")
        page.click("#fork")
        page.wait_for_selector("#branches li")
        assert session.now.step == end - 10
        _steps(page, 14)
        page.keyboard.press("t")
        _wait_until(page, lambda: page.inner_text("#learned .score") == page.inner_text("#real .score"))
        _steps(page, 6)
        page.keyboard.press("m")
        link = page.wait_for_selector("#films a")
        assert link is not None
        _take_screenshot(page, "play.png", tmp_path)
        with page.expect_download() as download:
            link.click()
        assert Path(download.value.path()).read_bytes() == (tmp_path / "films" / "LearnedPong-v0-001.mp4").read_bytes()

        page.keyboard.press("r")
        _wait_until(page, lambda: page.inner_text("#seed-badge") == "seed 4")
        assert _step(page) == 0 and page.locator("#branches li").count() == 0


def test_control_problem_has_sliders_and_charts(page: "Page", control: str, tmp_path: Path) -> None:
    session = Session(control)
    with serve(session, tmp_path) as address:
        _open(page, address)
        assert page.locator(".chart").count() == 2, "the state and the reward"
        page.focus(".slider input")
        page.keyboard.press("ArrowRight")
        assert page.inner_text(".slider output") == "1.05", "in physical units, of which the middle is 1"
        _steps(page, 2)
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("Shift+ArrowLeft")
        _steps(page, 2)
        actions = np.array([moment.action for moment in session.moments[1:]])
        assert actions == pytest.approx(np.array([[0.05], [0.05], [-0.2], [-0.2]]))
        assert page.inner_text("#where") == "step 4"
        assert page.eval_on_selector(".chart canvas", _COLOURS) > 3, "the chart shows lines"
        _take_screenshot(page, "play-control.png", tmp_path)
        page.keyboard.press("p")
        _wait_for(page, "over")
        assert page.inner_text("#learned .over") == page.inner_text("#real .over") == "Time is up"
        assert page.is_disabled("#play") and page.is_disabled("#step") and page.is_disabled("#take-over")


def test_page_works_without_the_real_game_and_says_so(page: "Page", tiny_pong: Path, tmp_path: Path) -> None:
    session = Session(str(tiny_pong), real=False)
    session.missing_twin = 'Run: pip install "learned-envs[atari]"'
    with serve(session, tmp_path) as address:
        _open(page, address)
        assert 'pip install "learned-envs[atari]"' in page.inner_text("#missing")
        assert page.is_disabled("#take-over")
        button = page.locator('#controls button:has-text("LEFTFIRE")')
        button.hover()
        page.mouse.down()
        _steps(page, 1)
        page.mouse.up()
        assert session.now.action == 5, "an action is held with the mouse, too"


def test_page_comes_back_after_the_connection_was_lost(page: "Page", control: str, tmp_path: Path) -> None:
    session = Session(control)
    with serve(session, tmp_path) as address:
        _open(page, address)
        _steps(page, 3)
        page.reload()
        _wait_for(page, "paused")
        assert _step(page) == 3
        other = page.context.new_page()
        _open(other, address)
        page.wait_for_selector("#curtain:visible")
        page.click("#curtain-button")
        other.wait_for_selector("#curtain:visible")
        _steps(page, 1)
    _wait_for(page, "lost")
    assert page.is_disabled("#play")


def test_page_fits_a_narrow_window(page: "Page", control: str, tmp_path: Path) -> None:
    with serve(Session(control), tmp_path) as address:
        page.set_viewport_size({"width": 390, "height": 800})
        _open(page, address)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
