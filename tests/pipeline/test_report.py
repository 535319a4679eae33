"""The report shows the facts, runs nothing and loads nothing, whatever the corpus contains."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.report.charts import MAX_POINTS, Curve, line_chart, short, thin, ticks
from pipeline.report.figures import write_figures
from pipeline.report.page import Table
from pipeline.report.report import columns, format_summary, report_page, write_report
from pipeline.report.results import duration, finite, round_curves
from pipeline.report.sections import TOLD
from pipeline.safety.seals import seal_damage

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "{{7*7}}",
    "javascript:alert(1)",
    "\u202etxt.exe\u2066",
    "\x1b[31mred\x07",
    "</style><style>*{display:none}",
    "\ud800",
    "a\u2028b\x00c",
]


def sample_summary() -> dict[str, Any]:
    """The result of a run on a 2 MB corpus, in the form of summary.json."""
    rounds = []
    kept = 0
    for number in range(12):
        loss = 1.9 + 2.2 * math.exp(-number / 3)
        points = [(kept + 75_000 * (piece + 1), loss + 0.02 * math.sin(7 * piece + number)) for piece in range(8)]
        kept += 600_000
        rounds.append(
            {"round": number, "epoch": number // 4, "loss": loss, "alpha": 0.05 * (1 - number / 12), "kept_tokens": 600_000,
             "raw_tokens": 1_250_000.0, "seconds": 0.16 + 0.01 * (number % 3), "points": points}
        )  # fmt: skip
    return {
        "status": "complete",
        "run_id": "demo-0123456789ab",
        "config_digest": "0123456789abcdef" * 4,
        "config": {"run": {"name": "demo", "seed": 1}, "train": {"vector_size": 100, "epochs": 3, "model": "cbow"}},
        "corpus": {"tokens": 5_012_345, "sentences": 210_400, "dropped_long_tokens": 12, "files": 3},
        "vocab": {"size": 31_204, "distinct_words": 90_000, "corpus_tokens": 5_012_345, "tokens": 4_900_000},
        "shards": {"kept_tokens": 2_450_000},
        "made": {"at": "2026-11-29 08:00 UTC", "host": "lab", "command": "w2v run demo.yaml"},
        "workers": [{"worker": 0, "cpu_percent": 97.4, "memory_bytes": 300 << 20, "tokens_per_s": 1.2e6, "waiting_share": 0.041,
                     "gpu_memory_bytes": None}],
        "stages": {
            "tokenize": {"seconds": 0.61, "cached": True, "tokens": 5_012_345, "fingerprint": "a" * 64},
            "vocab": {"seconds": 0.09, "cached": False, "tokens": 5_012_345, "fingerprint": "b" * 64},
            "shards": {"seconds": 0.34, "cached": False, "tokens": 5_012_345, "fingerprint": "c" * 64},
            "train": {"seconds": 2.15, "cached": False, "tokens": 15_037_035, "fingerprint": "d" * 64},
            "evaluate": {"seconds": 0.52, "cached": False, "fingerprint": "e" * 64},
        },
        "train": {"raw_tokens": 15_037_035, "kept_tokens": kept, "seconds": 2.15, "raw_tokens_per_s": 6_994_000,
                  "final_loss": 1.9563, "lanes": 2, "merged_bytes": 81_264_640, "rounds": rounds},
        "vectors": {"path": "/data/runs/demo/vectors/dddddddddddddddd", "sha256": "f" * 64, "shape": [31_204, 100]},
        "evaluation": {
            "analogy": 0.2871, "semantic": 0.2412, "syntactic": 0.3104, "coverage": 0.8123,
            "similarity": {"wordsim353": 0.6218, "simlex999": None}, "similarity_coverage": {"wordsim353": 0.934},
            "sets": {"analogy": {"questions": {"sections": [
                {"name": "family", "accuracy": 0.5, "coverage": 0.9, "correct": 90, "asked": 180, "total": 200,
                 "right": [["man", "woman", "king", "queen", "queen"]], "wrong": [["boy", "girl", "son", "daughter", "sun"]]}]}}},
        },
        "neighbours": {
            "king": [["queen", 0.7812], ["prince", 0.7544], ["kings", 0.7021], ["throne", 0.6899]],
            "왕": [["여왕", 0.7411], ["왕자", 0.7105]],
            "qqqq": None,
        },
        "analogies": [
            {"question": "man:king=woman", "answers": [["queen", 0.7121], ["princess", 0.6609]], "missing": []},
            {"question": "a:b=c", "answers": [], "missing": ["b"]},
        ],
        "notes": ["corpus/part-3.txt: 17 bytes were not UTF-8 and were replaced"],
        "mlflow": {"uri": "sqlite:////data/runs/mlflow.db", "run_id": "9075d7af399f497c", "complete": True, "message": None},
        "report": "/data/runs/demo/report/index.html",
    }  # fmt: skip


REFRESH = {
    "status": "promoted", "decision": "replaces 0123: every gate held",
    "gates": [{"gate": "finite", "found": 1.0, "asked": 1.0, "held": True, "text": "every number is finite"},
              {"gate": "overlap", "found": 0.71, "asked": 0.3, "held": False, "text": "71 % of the neighbourhoods stayed"}],
    "start": "warm", "why": "continues from the champion",
    "delta": {"added": {"files": 7, "names": [f"/corpus/{day}.txt" for day in range(7)]}, "deleted": {"files": 0, "names": []},
              "renamed": {"files": 1, "names": [["/corpus/a.txt", "/corpus/b.txt"]]}},
    "corpus": {"before": {"files": 10, "tokens": 900_000}, "now": {"files": 17, "tokens": 1_000_000}},
    "known_tokens": {"before": 850_000, "now": 950_000, "gained": 110_000, "lost": 10_000},
    "words": {"before": 30_000, "now": 31_204, "gained": {"words": 1300, "names": ["vaccine"]},
              "lost": {"words": 96, "names": []}},
    "scores": {"before": {"analogy": 0.25, "similarity": {"wordsim353": 0.6}},
               "now": {"analogy": 0.2871, "similarity": {"wordsim353": 0.6218}}},
    "stability": {"overlap": 0.71, "drift": 0.04, "drift_histogram": {"edges": [0.0, 0.5, 1.0, 2.0], "words": [900, 90, 10]},
                  "most_moved": [["corona", 0.93]]},
}  # fmt: skip


def test_a_refresh_is_shown_against_the_champion() -> None:
    summary = sample_summary() | {"refresh": REFRESH}
    page = Page(report_page(summary, round_curves(summary)))
    for fact in (
        "Against the champion promoted: replaces 0123: every gate held (warm: continues from the champion)",
        "what was found overlap NOT held 71 % of the neighbourhoods stayed finite held every number is finite",
        "files 10 17 7 0 tokens 900,000 1,000,000 – – tokens of known words 850,000 950,000 110,000 10,000 words 30,000",
        "added 7 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 2 more renamed 1 a.txt → b.txt",
        "median drift 0.04",
        "wordsim353 0.6 0.6218 0.0218",
        "gained vaccine",
        "corona 0.93",
        "Drift: words 900 → 10",
    ):
        assert fact in page.shown, fact


class Page(HTMLParser):
    """Every element, every attribute and the text of a page, as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def shown(self) -> str:
        return " ".join(" ".join(self.words).split())


def render_sample(summary: dict[str, Any], word: str = "word") -> str:
    tables = [Table("Extra", ("what", "n"), [("x", 1), ("y", 2.5), (word, 3)])]
    words = {
        "words": [word, "b", "c"],
        "xy": [[0, 0], [5000, 9000], [10000, 400]],
        "near": [[1], [0], [0]],
        "cosines": [[90], [90], [7]],
    }
    before = {**sample_summary(), "config": {"run": {"name": word}, "train": {"epochs": 7}}, "made": {"at": word}}
    return report_page(summary, round_curves(summary), tables, before, words, [30, 20, 10, 5, 1])


def test_the_report_shows_every_fact_of_the_run() -> None:
    page = Page(render_sample(sample_summary()))
    for fact in (
        "demo complete",
        "5,012,345 tokens of text, 31,204 vectors of 100 dimensions",
        "made 2026-11-29 08:00 UTC on lab by w2v run demo.yaml",
        "Map of the 3 most frequent words",
        "family 50.0% 180 90.0%",
        "Some answered wrong a is to b as c is to answered boy girl son daughter sun",
        "dropped: tokens too long 12",
        "112,345 tokens, 2.2%, of 58,796 words",
        "2,450,000 of 4,900,000 tokens, 50.0%",
        "0 97 % of a core 300 MiB 1,200,000 4.1%",
        "Settings that differ key before now run.name word demo",
        "w2v query similar CONFIG king",
        "tokenize 5.01M – reused",
        "train 15M 6.99M 2.15 s",
        "all 3.10 s",
        "analogies, semantic accuracy 0.2412",
        "wordsim353 Spearman's ρ 0.6218 93.4%",
        "queen 0.78",
        "왕 여왕 0.74",
        "qqqq not in the vocabulary",
        "man is to king as woman is to … queen 0.71",
        "17 bytes were not UTF-8",
        "0123456789abcdef" * 4,
        "train.vector_size 100",
        "Extra what n x 1 y 2.5 word 3",
    ):
        assert fact in page.shown, fact
    assert page.elements.count("polyline") == 4
    assert page.elements.count("table") >= 4


def test_the_page_runs_nothing_and_requests_nothing() -> None:
    page = Page(render_sample(sample_summary()))
    loading = {"src", "style", "srcset", "action", "data", "background", "poster"}
    assert not {"img", "link", "iframe", "object", "embed", "form", "base"} & set(page.elements)
    assert not [found for found in page.attributes if found[1] in loading or found[1].startswith("on")]
    assert all(value.startswith("#") for _, name, value in page.attributes if name == "href")
    assert page.elements.count("script") == 2
    (policy,) = [value for tag, name, value in page.attributes if tag == "meta" and name == "content" and "default-src" in value]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "script-src 'sha256-" in policy
    assert "unsafe" not in policy
    assert "url(" not in render_sample(sample_summary())
    assert "@import" not in render_sample(sample_summary())


def with_words(word: str) -> dict[str, Any]:
    """The sample with `word` wherever data of the corpus, of file names or of a configuration can appear."""
    summary = sample_summary()
    summary["neighbours"] = {word: [[word, 0.5]]}
    summary["analogies"] = [{"question": word, "answers": [[word, 0.4]]}]
    summary["notes"] = [word]
    summary["status"] = word
    summary["config"] = {"run": {"name": word}, word: word}
    summary["evaluation"]["similarity"] = {word: 0.5}
    summary["stages"][word] = {"seconds": 1.0, "cached": False}
    summary["corpus"][word] = word
    summary["made"] = {"at": word, "host": word, "command": word}
    summary["evaluation"]["sets"]["analogy"] = {
        word: {"sections": [{"name": word, "accuracy": 0.5, "coverage": 0.9, "asked": 1, "total": 2, "wrong": [[word] * 5]}]}
    }
    summary["vectors"]["path"] = word
    summary["mlflow"] = {"uri": word, "run_id": word, "message": word}
    return summary


def shape_of(page: Page) -> tuple[list[str], set[tuple[str, str]]]:
    return page.elements, {(tag, name) for tag, name, _ in page.attributes}


@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_words_change_nothing_but_text(word: str) -> None:
    hostile, harmless = render_sample(with_words(word), word), render_sample(with_words("word"))
    hostile.encode()
    assert shape_of(Page(hostile)) == shape_of(Page(harmless))
    assert not re.search("[\u200e\u200f\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f]", hostile)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(word=st.text(min_size=1, max_size=30).filter(lambda word: word not in TOLD))  # a fact shown elsewhere on the page
def test_arbitrary_text_changes_nothing_but_text(word: str) -> None:
    assert shape_of(Page(render_sample(with_words(word), word))) == shape_of(Page(render_sample(with_words("word"))))
    shown = format_summary(with_words(word), 80)
    assert not [c for c in shown if not c.isprintable() and c != "\n"]


@pytest.mark.parametrize("missing", [*sample_summary(), "everything"])
def test_a_part_that_is_missing_is_left_out_and_the_rest_is_shown(missing: str) -> None:
    summary = {key: value for key, value in sample_summary().items() if key != missing and missing != "everything"}
    page = Page(report_page(summary, round_curves(summary)))
    assert "Provenance" in page.shown or missing == "everything"
    assert format_summary(summary, 80)


def test_the_files_are_complete_and_the_json_is_strict(tmp_path: Path) -> None:
    summary = sample_summary()
    summary["train"]["final_loss"] = float("nan")
    summary["notes"] = ["\ud800"]
    path = write_report(tmp_path, summary, tables=[Table("T", ("a",), [(float("inf"),)])])
    assert path == tmp_path / "index.html"

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    body = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert body["summary"]["train"]["final_loss"] is None
    assert body["summary"]["vocab"]["size"] == 31_204
    assert body["tables"][0]["rows"] == [[None]]
    assert [curve["title"] for curve in body["curves"]] == ["Loss", "Learning rate", "Speed"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["figures", "index.html", "report.json", "seal.json"]


def test_a_report_that_is_cut_off_while_it_is_replaced_is_not_called_damaged(tmp_path: Path) -> None:
    page = write_report(tmp_path, sample_summary())
    page.unlink()
    page.mkdir()
    with pytest.raises(PipelineError, match=r"index\.html"):
        write_report(tmp_path, sample_summary() | {"run_id": "another"})
    assert seal_damage(tmp_path)[1] == []
    page.rmdir()
    write_report(tmp_path, sample_summary())
    page.write_text("edited")
    assert seal_damage(tmp_path)[1] == [f"{page}: its content changed (SHA-256 differs)"]


def test_the_figures_are_pictures_whatever_the_words_are(tmp_path: Path) -> None:
    from PIL import Image

    words = {"words": HOSTILE, "xy": [[place * 900, place * 700] for place in range(len(HOSTILE))]}
    drawn = write_figures(tmp_path, round_curves(sample_summary()), words)
    assert [path.name for path in drawn] == ["loss.png", "map.png"]
    for path in drawn:
        with Image.open(path) as image:
            darkest, brightest = image.convert("L").getextrema()
            assert darkest < 100 < 255 == brightest, "something dark on white paper"
    assert write_figures(tmp_path / "none", [], None) == []


def test_the_loss_curve_is_the_points_of_the_rounds_and_epochs_are_marked() -> None:
    loss, alpha, speed = round_curves(sample_summary())
    assert len(loss.points) == 96
    assert loss.points[0][0] == 75_000
    assert [x for x, _ in alpha.points] == [600_000 * (number + 1) for number in range(12)]
    assert loss.divisions == [2_400_000, 4_800_000]
    assert speed.points[0][1] == 1_250_000 / 0.16
    assert line_chart(loss).count('class="division"') == 2
    assert line_chart(loss).count('class="level"') == 12
    assert loss.levels[1] == (600_000, 1_200_000, sample_summary()["train"]["rounds"][1]["loss"])
    assert ">0</text>" in line_chart(speed)
    assert ">0</text>" not in line_chart(loss)


def test_a_chart_leaves_out_what_is_not_finite_and_needs_two_points() -> None:
    assert line_chart(Curve("x", [(1, 2.0), (2, math.nan)], "", "")) == ""
    svg = line_chart(Curve("x", [(1, 2.0), (2, math.inf), (3, 1.0)], "", ""))
    assert len(re.search('points="([^"]*)"', svg).group(1).split()) == 2  # type: ignore[union-attr]
    assert "nan" not in svg
    assert "inf" not in svg


@given(count=st.integers(0, 3000))
def test_thinning_keeps_the_ends_the_order_and_the_limit(count: int) -> None:
    points = [(float(x), float(-x)) for x in range(count)]
    kept = thin(points)
    assert len(kept) == min(count, MAX_POINTS)
    assert kept[:1] == points[:1]
    assert kept[-1:] == points[-1:]
    assert kept == sorted(kept)


@given(low=st.floats(-1e9, 1e9), span=st.floats(1e-6, 1e9))
def test_ticks_are_few_and_cover_the_range(low: float, span: float) -> None:
    high = low + span
    found = ticks(low, high, 5)
    assert 1 <= len(found) <= 8
    if high > low and (high - low) > 1e-9 * max(abs(low), abs(high)):
        step = found[1] - found[0] if len(found) > 1 else span
        assert found[0] <= low + 1e-6 * step
        assert found[-1] >= high - 1e-6 * step


def test_columns_are_those_of_a_terminal() -> None:
    assert columns("king") == 4
    assert columns("왕子ア") == 6
    assert columns("e\u0301") == 1


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_terminal_summary_names_what_matters_within_its_width(width: int) -> None:
    summary = sample_summary()
    summary["neighbours"]["long"] = [[f"neighbour{number}", 0.9 - 0.01 * number] for number in range(20)]
    summary["neighbours"]["넓은"] = [["가나다라", 0.9 - 0.01 * number] for number in range(20)]
    shown = format_summary(summary, width)
    for fact in (
        "demo: complete",
        "tokenize       5.01M        reused",
        "train            15M        2.15 s       6.99M",
        "analogies, all",
        "queen .781",
        "왕   ",
        "man:king=woman",
        "vectors  /data/runs/demo/vectors/dddddddddddddddd",
        "report   /data/runs/demo/report/index.html",
        "tracked  sqlite:////data/runs/mlflow.db run 9075d7af399f497c",
    ):
        assert fact in shown, shown
    body, _, places = shown.rpartition("\n\n")
    assert places.startswith("vectors")
    assert max(columns(line) for line in body.split("\n")) <= width


def test_a_run_that_is_not_fully_tracked_says_so_in_the_terminal() -> None:
    summary = sample_summary()
    summary["mlflow"] |= {"complete": False, "message": "12 bytes are still to be delivered"}
    assert "12 bytes are still to be delivered" in format_summary(summary, 80)
    summary["mlflow"] = {"uri": "http://host", "run_id": None, "message": "MLflow at http://host does not answer"}
    assert "tracked  MLflow at http://host does not answer" in format_summary(summary, 80)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0.00 s"),
        (9.949, "9.95 s"),
        (9.96, "10.0 s"),
        (119.9, "119.9 s"),
        (119.99, "2 min 00 s"),
        (3600, "60 min 00 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations_read_as_people_write_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(950, "950"), (9_999, "9999"), (31_204, "31.2k"), (15_037_035, "15M"), (4e9, "4G"), (0.05, "0.05"), (-12_000, "-12k")],
)
def test_short_numbers_keep_three_figures(value: float, said: str) -> None:
    assert short(value) == said


def test_finite_leaves_everything_else_as_it_is() -> None:
    assert finite({"a": [1, 2.5, True, None, "x", float("nan")], 3: (1,)}) == {"a": [1, 2.5, True, None, "x", None], "3": [1]}
