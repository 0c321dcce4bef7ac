"""A gateway on the tiny models with cards and sample grids, and a browser to look at it."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

import tiny_graphs

from serving.client.gateway import Gateway, gateway

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def page_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The gateway that the page is tried on."""
    repository = tiny_graphs.publish_all(tmp_path_factory.mktemp("repository"))
    for folder in repository.iterdir():
        if folder.name == "tiny_gaussian":
            continue  # a model that nobody has evaluated
        (folder / "card.md").write_text(CARD.format(name=folder.name), "utf-8")
        Image.new("RGB", (140, 140), "teal").save(folder / "samples.png")
    with gateway(repository) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium as the distribution has it; closed with its module, as asyncio tests cannot run beside it."""
    if CHROMIUM is None:
        pytest.skip("NO CHROMIUM HERE: THE PAGE IS NOT TESTED. Install it (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Browser, page_gateway: Gateway) -> Iterator[Callable[..., Page]]:
    """Opens a path of the gateway in a fresh browser; at the end nothing may have gone wrong in it."""
    problems: list[str] = []
    contexts = []

    def opened(path: str = "/", *, width: int = 1280, expect_refusals: bool = False) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)

        def note(message: object) -> None:
            text = str(getattr(message, "text", message))
            if not (expect_refusals and "Failed to load resource" in text):
                problems.append(text)

        page.on("pageerror", note)
        page.on("console", lambda message: note(message) if message.type in ("error", "warning") else None)
        page.on("request", lambda request: check_address(request.url))
        page.goto(page_gateway.http_address + path)
        return page

    def check_address(url: str) -> None:
        if not url.startswith((page_gateway.http_address, "data:", "blob:")):
            problems.append(f"the page asks {url}")

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


CARD = """# {name}

![Samples](samples.png)

| | |
| --- | --- |
| data | drawn by `hand` |

## Figures

| | accuracy |
| --- | ---: |
| **this** | 0.9940 |

- **accuracy**: <b>share</b> of images.
"""
