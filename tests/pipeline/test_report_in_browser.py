"""The report as a browser shows it: it runs without an error, requests nothing, the map responds, hostile words stay text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.report.layout import map_file
from pipeline.report.report import write_report
from tests.browser import Tab, open_tab
from tests.pipeline.test_report import HOSTILE, sample_summary, with_words
from w2v_core.vectors import WordVectors

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default::ResourceWarning")]

NEXT_TO_EACH_OTHER = ["ship", "boat"]


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with open_tab() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report with hostile words in its map, its tables and wherever else data can be."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(4)
    matrix = rng.normal(size=(300, 20)).astype(np.float32)
    words = [*HOSTILE, *NEXT_TO_EACH_OTHER, *(f"word{number}" for number in range(300 - len(HOSTILE) - 2))]
    matrix[words.index("boat")] = matrix[words.index("ship")] + 0.01
    vectors = WordVectors(words, matrix, np.arange(300, 0, -1))
    vectors.save(folder / "vectors")
    (folder / "map.json").write_bytes(map_file(vectors))
    summary: dict[str, Any] = with_words(HOSTILE[0]) | {"map": str(folder / "map.json")}
    summary["vectors"] = {"path": str(folder / "vectors"), "sha256": "a", "shape": [300, 20]}
    summary["neighbours"] = {word: [[word, 0.5]] for word in HOSTILE}
    write_report(folder / "report", sample_summary())
    return write_report(folder / "report", summary).as_uri()


def test_the_page_opens_without_an_error_and_requests_nothing(tab: Tab, page: str) -> None:
    for width, phone, dark in ((1280, False, False), (390, True, True)):
        tab.size(width, 844, dark, phone)
        tab.open(page)
        assert tab.errors == []
        assert tab.requests == [page]
        assert tab.value("document.documentElement.scrollWidth") <= width, "nothing sticks out to the side"
        assert tab.value("document.querySelectorAll('h2').length") >= 10
    background = tab.value("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(20, 23, 26)", "dark where the reader wants it dark"


def test_hostile_words_are_text_in_the_map_too(tab: Tab, page: str) -> None:
    tab.size(1280, 900)
    tab.open(page)
    assert tab.value("document.querySelectorAll('img, script, iframe, style').length") == 3, "the page's own, no more"
    assert tab.value("document.querySelector('#neighbours h3').textContent") == HOSTILE[0]
    for word in HOSTILE[:4]:
        tab.value(f"(e => {{ e.value = {word!r}; e.dispatchEvent(new Event('input')); }})(document.getElementById('search'))")
        assert tab.value("document.querySelector('#near h3').textContent") == word
    assert tab.value("document.querySelectorAll('img, script, iframe, style').length") == 3
    assert tab.errors == []


def test_the_map_answers_to_search_hover_zoom_and_keys(tab: Tab, page: str) -> None:
    tab.size(1280, 900)
    tab.open(page)
    tab.value("document.getElementById('search').focus()")
    tab.type("ship")
    nearest = "document.querySelector('#near li').textContent"
    assert tab.value("document.querySelector('#near h3').textContent") == "ship"
    assert tab.value(nearest).startswith("boat")
    tab.value("document.querySelector('#near li button').click()")
    assert tab.value("document.querySelector('#near h3').textContent") == "boat"
    # The search centred the word: once everything is released, pointing there finds it or a word at the same place.
    tab.value("document.getElementById('canvas').scrollIntoView({block: 'center'}); document.getElementById('canvas').focus()")
    tab.key("Escape")
    assert tab.value("document.querySelector('#near h3').textContent") == "Nearest words"
    box = tab.value("(b => [b.left, b.top, b.width, b.height])(document.getElementById('canvas').getBoundingClientRect())")
    tab.mouse(box[0] + box[2] / 2, box[1] + box[3] / 2)
    assert tab.value("document.querySelector('#near h3').textContent") in NEXT_TO_EACH_OTHER
    look = "document.getElementById('canvas').toDataURL()"
    seen = [tab.value(look)]
    for key in ("+", "ArrowLeft", "-"):
        tab.key(key)
        seen.append(tab.value(look))
    tab.mouse(box[0] + 30, box[1] + 30, "mouseWheel", deltaX=0, deltaY=-300)
    seen.append(tab.value(look))
    tab.key("Enter")
    assert len(set(seen)) == len(seen), "every one of them moved the map"
    assert tab.value("document.querySelectorAll('#near li').length") == 10
    assert tab.errors == []


def test_screenshots_are_not_blank(tab: Tab, page: str, tmp_path: Path) -> None:
    tab.size(390, 844, phone=True)
    tab.open(page)
    assert tab.screenshot(tmp_path / "phone.png").stat().st_size > 20_000
    pixels = (
        "(c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size)(document.getElementById('canvas'))"
    )
    assert tab.value(pixels) > 20, "the map is drawn"
