"""A comparison for people: as text for the terminal, and as an HTML page like the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.compare.compare import is_same
from pipeline.errors import counted, printable
from pipeline.report.page import Table, render
from pipeline.report.results import decimal, duration, is_number, percent

Compared = Mapping[str, Any]
_NAME = 24


def tables(found: Compared) -> list[Table]:
    """The comparison as tables, with the sides as columns."""
    names = [side["name"] for side in found["sides"]]
    about = [
        [label, *(side[key] for side in found["sides"])]
        for key, label in (
            ("source", "source"), ("made", "made"), ("words", "words"), ("vector_size", "dimensions"),
            ("tokens", "corpus tokens"), ("final_loss", "final loss"), ("tokens_per_s", "raw tokens/s"),
        )
        if any(side[key] is not None for side in found["sides"])
    ]  # fmt: skip
    scores = [[f"{row['test']} ({row['measure']})", *map(_score, row["score"], row["coverage"])] for row in found["scores"]]
    took = [[stage, *("–" if value is None else duration(value) for value in row)] for stage, row in found["seconds"].items()]
    made = [
        Table("What is compared", ("", *names), about),
        Table("Settings that differ", ("key", *names), [[key, *row] for key, row in found["settings"].items()]),
        Table("Scores", ("test", *names), scores),
        Table("Seconds", ("stage", *names), took),
        *(_moved(words) for words in found["words"]),
    ]
    return [table for table in made if table.rows]


def _score(score: object, coverage: object) -> str:
    return decimal(score) + (f" ({percent(coverage)} covered)" if is_number(coverage) else "")


def _moved(words: Mapping[str, Any]) -> Table:
    rows = [[row["word"], f"{row['kept']:.0%}", ", ".join(row["before"]), ", ".join(row["now"])] for row in words["moved"]]
    title = f"Neighbourhoods that moved most: {words['first']} → {words['other']}"
    return Table(title, ("word", "kept", f"near it in {words['first']}", f"near it in {words['other']}"), rows)


def sentences(found: Compared) -> Iterator[str]:
    """The comparison in a few sentences."""
    if is_same(found):
        yield "No setting, no score and no neighbourhood differs."
    for words in found["words"]:
        text = f"{words['first']} and {words['other']} have {counted(words['common'], 'words|word')} in common"
        if words["overlap"] is not None:
            text += (
                f"; of the {words['neighbours']} nearest of {words['asked']:,} frequent ones {words['overlap']:.1%} are the same"
            )
        else:
            text += ", too few to compare neighbourhoods"
        yield f"{text}. {counted(words['gained']['words'], 'words|word were|was gained')}, {words['lost']['words']:,} lost."


def as_text(found: Compared, width: int = 100) -> str:
    """The comparison for a terminal of `width` columns; text from data is sanitised."""
    blocks = ["\n".join(sentences(found))]
    for table in tables(found):
        rows = [[_cell(value) for value in row] for row in (table.header, *table.rows)]
        columns = [min(max(len(row[place]) for row in rows), width // 2) for place in range(len(table.header))]
        lines = ["  ".join(f"{value:<{columns[place]}}" for place, value in enumerate(row)).rstrip()[:width] for row in rows]
        blocks.append("\n".join([table.title, *(f"  {line}" for line in lines)]))
    return "\n\n".join(blocks)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else printable(str(value), 200)


def as_page(found: Compared) -> str:
    """The page; self-contained, with the report's style and its security policy."""
    names: Sequence[str] = [side["name"] for side in found["sides"]]
    return render("compare.html.j2", title=" beside ".join(names), sentences=list(sentences(found)), tables=tables(found))
