"""A stranger plays with every model on the page, in a real browser."""

import base64
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

import tiny_graphs

from serving.access.keys import digest_of, new_key
from serving.client.gateway import gateway

Visit = Callable[..., Page]

MODELS = ["tiny_gan", "tiny_gaussian", "tiny_latent", "tiny_translator", "tiny_vae"]
FINISHED = re.compile(r"round trip \d+ ms")


def pixels(page: Page, selector: str) -> np.ndarray:
    """What an <img> shows."""
    source = page.locator(selector).first.get_attribute("src")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


def test_every_model_is_offered_and_the_first_draws_at_once(visit: Visit):
    page = visit()
    expect(page.locator(".model strong")).to_have_text(MODELS)
    expect(page.locator("#status")).to_contain_text("5 models ready")
    expect(page.locator(".run-line")).to_have_text(FINISHED)
    expect(page.locator(".pictures img")).to_have_count(9)


def test_the_same_seed_and_class_draw_the_same_and_others_do_not(visit: Visit):
    page = visit("/#/tiny_gan")
    page.get_by_label("Seed", exact=True).fill("5")
    page.get_by_role("slider", name="Pictures").fill("1")

    def draw() -> np.ndarray:
        page.get_by_role("button", name="Generate").click()
        expect(page.locator(".pictures img")).to_have_count(1)
        expect(page.locator(".run-line")).to_have_text(FINISHED)
        return pixels(page, ".pictures img")

    page.get_by_text("one", exact=True).click()
    one = draw()
    assert (draw() == one).all()
    page.get_by_text("two", exact=True).click()
    assert (draw() != one).any()


def test_previews_are_shown_while_the_sampler_runs(visit: Visit):
    page = visit("/#/tiny_gaussian")
    expect(page.locator(".run-line")).to_have_text(FINISHED)
    page.evaluate(
        "() => { window.seen = []; new MutationObserver(() => {"
        " const grid = document.querySelector('.pictures');"
        " if (grid.querySelector('img[src]')) window.seen.push(grid.classList.contains('unsettled')); })"
        ".observe(document.querySelector('.pictures'),"
        " { subtree: true, childList: true, attributes: true, attributeFilter: ['src'] }); }"
    )
    page.get_by_role("slider", name="Steps").fill("50")
    page.get_by_role("slider", name="Pictures").fill("64")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator(".run-line")).to_contain_text("50 steps")
    seen = page.evaluate("window.seen")
    assert seen[0] is True
    assert seen[-1] is False


def test_the_snippet_is_the_request_that_was_made(visit: Visit):
    page = visit("/#/tiny_gaussian")
    page.get_by_text("two", exact=True).click()
    page.get_by_label("Seed", exact=True).fill("77")
    snippet = page.locator(".snippets pre")
    expect(snippet).to_contain_text('"class_label":"two"')
    expect(snippet).to_contain_text('"seed":77')
    expect(snippet).to_contain_text("/v1/models/tiny_gaussian:generate")
    page.get_by_role("button", name="Python").click()
    expect(snippet).to_contain_text('client.generate("tiny_gaussian", class_label="two"')


def test_what_the_gateway_refuses_is_said_and_marked(visit: Visit):
    page = visit("/#/tiny_gan", expect_refusals=True)
    seed = page.get_by_label("Seed", exact=True)
    seed.fill("99999999999999999999999")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("alert")).to_contain_text("seed")
    expect(seed).to_have_attribute("aria-invalid", "true")
    seed.fill("1")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator(".run-line")).to_contain_text("seed 1 ")


# On an idle machine a tiny model is done before a second click gets through the browser's driver.
GENERATE_AND_STOP = """go => {
  const [generate, stop] = go.querySelectorAll("button");
  generate.click();
  stop.click();
}"""


def test_a_long_run_can_be_stopped(visit: Visit):
    page = visit("/#/tiny_gaussian")
    expect(page.locator(".run-line")).to_have_text(FINISHED)
    page.get_by_role("slider", name="Steps").fill("50")
    page.get_by_role("slider", name="Pictures").fill("64")
    page.get_by_role("slider", name="Guidance").fill("3")
    page.get_by_text("one", exact=True).click()
    page.locator(".go").evaluate(GENERATE_AND_STOP)
    expect(page.locator(".run-line")).to_have_text("stopped")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()


def test_a_drawing_is_translated_and_back(visit: Visit):
    page = visit("/#/tiny_translator")
    expect(page.get_by_text("day → night")).to_be_visible()
    pad = page.locator(".pad")
    page.get_by_role("slider", name="Pen").fill("48")
    box = pad.bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 20, box["y"] + box["height"] / 2, steps=8)
    page.mouse.up()
    expect(page.locator(".run-line")).to_have_text(FINISHED)
    shown = pixels(page, ".translated")
    assert shown[0, 0].tolist() == [0, 0, 0]
    assert shown[shown.shape[0] // 2, shown.shape[1] // 2].min() > 200
    page.get_by_role("button", name="Translate it back").click()
    expect(page.get_by_label("night → day")).to_be_checked()


def test_a_picture_file_is_translated(visit: Visit, tmp_path: Path):
    Image.new("RGB", (300, 200), "red").save(tmp_path / "red.png")
    page = visit("/#/tiny_translator")
    page.locator("input[type=file]").set_input_files(tmp_path / "red.png")
    expect(page.locator(".run-line")).to_have_text(FINISHED)
    page.get_by_text("64×64").click()
    expect(page.locator(".translated")).to_have_js_property("naturalWidth", 64)
    assert pixels(page, ".translated")[5, 5].tolist() == [0, 255, 255]


def test_a_picture_of_another_model_is_translated(visit: Visit):
    page = visit("/#/tiny_gaussian")
    page.locator(".tile img").first.click()
    page.get_by_role("button", name="Translate with tiny_translator").click()
    expect(page).to_have_url(re.compile("#/tiny_translator/translate$"))
    expect(page.locator(".translated")).to_be_visible()
    page.get_by_role("button", name="One from tiny_gaussian").click()
    expect(page.locator(".run-line")).to_have_text(FINISHED)


def test_a_preview_is_handed_on_as_it_is_seen(visit: Visit):
    page = visit("/#/tiny_gaussian")
    expect(page.locator(".run-line")).to_have_text(FINISHED)
    handed = page.evaluate(
        """async () => {
            const { pictureGrid } = await import("/web/pictures.js");
            const handed = [], url = document.querySelector(".tile img").src;
            const grid = pictureGrid((given) => { handed.push(given === url); return []; });
            grid.show([url], { settled: false, label: "preview" });
            grid.querySelector(".tile").click();
            return handed;
        }"""
    )
    assert handed == [True]


def test_latent_space_is_walked_with_a_slider(visit: Visit):
    page = visit("/#/tiny_vae/explore")
    expect(page.locator(".strip button")).to_have_count(24)
    start = pixels(page, ".frame")
    page.get_by_role("slider", name="Place").fill("23")
    assert (pixels(page, ".frame") != start).any()
    page.get_by_text("along one dimension").click()
    page.get_by_role("slider", name="Dimension").fill("2")
    expect(page.locator(".snippets pre")).to_contain_text('"dimension":2')
    play = page.get_by_role("button", name="Play")
    play.click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()


def test_the_card_is_shown_and_brings_no_markup_of_its_own(visit: Visit):
    page = visit("/#/tiny_gan/card")
    card = page.locator(".card")
    expect(card.locator("h3")).to_have_text("tiny_gan")
    expect(card.locator("td code")).to_have_text("hand")
    expect(card.locator("td.number")).to_have_text("0.9940")
    expect(card.locator("li")).to_have_text("accuracy: <b>share</b> of images.")
    expect(card.locator("img")).to_have_js_property("naturalWidth", 140)


def test_a_model_without_a_card_says_how_to_get_one_and_nothing_missing_is_asked_for(visit: Visit):
    page = visit("/#/tiny_gaussian/card")
    expect(page.locator(".card")).to_have_text(
        "It has no card: atelier evaluate tiny_gaussian measures it and writes one."
    )
    expect(page.locator("#model-tiny_gaussian img")).to_have_count(0)
    expect(page.locator("#model-tiny_gan img")).to_have_js_property("naturalWidth", 140)


def test_the_keyboard_is_enough(visit: Visit):
    page = visit("/#/tiny_vae")
    page.get_by_role("tab", name="Generate").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Explore")).to_be_focused()
    expect(page.get_by_role("tab", name="Explore")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowLeft")
    page.get_by_label("Seed", exact=True).fill("8")
    page.keyboard.press("Enter")
    expect(page.locator(".run-line")).to_contain_text("seed 8 ")


def test_every_control_has_a_name(visit: Visit):
    for model in MODELS:
        page = visit(f"/#/{model}")
        expect(page.locator(".controls")).to_be_visible()
        unnamed = page.evaluate(
            "() => [...document.querySelectorAll('input, select, button')]"
            ".filter((e) => !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim()))"
            ".map((e) => e.outerHTML)"
        )
        assert unnamed == []


@pytest.mark.parametrize("path", ["/#/tiny_gaussian", "/#/tiny_translator", "/#/tiny_vae/explore", "/docs"])
def test_a_phone_shows_it_without_scrolling_sideways(visit: Visit, path: str):
    page = visit(path, width=390)
    expect(page.locator("h1")).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_scheme_is_switched_and_kept(visit: Visit):
    page = visit()
    paper = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(paper)
    page.get_by_role("button", name="Switch between light and dark").click()
    after = page.evaluate(paper)
    assert after != before
    page.reload()
    assert page.evaluate(paper) == after


def test_the_api_page_shows_every_operation_with_curl(visit: Visit):
    page = visit("/docs")
    operation = page.locator("#generateImages")
    expect(operation).to_contain_text("/v1/models/{model}:generate")
    expect(operation.locator("pre")).to_contain_text("curl -H 'Accept: image/png'")
    expect(page.locator("#GenerateImagesRequest")).to_contain_text("classLabel")


def test_a_gateway_that_wants_a_key_is_given_it_once(browser: Browser, tmp_path: Path):
    keys, key = tmp_path / "keys.toml", new_key()
    keys.write_text(f'[keys.ci]\nsha256 = "{digest_of(key)}"\n')
    repository = tiny_graphs.publish_all(tmp_path / "repository")
    with gateway(repository, "--api-keys", str(keys)) as running:
        page = browser.new_page()
        page.goto(running.http_address)
        for given in ("not this one", key):
            expect(page.locator("dialog.key")).to_be_visible()
            page.get_by_label("API key").fill(given)
            page.get_by_role("button", name="Come in").click()
        expect(page.locator(".model strong")).to_have_text(MODELS)
        expect(page.locator(".run-line")).to_have_text(FINISHED)
        expect(page.locator("dialog.key")).to_have_count(0)
        page.close()
