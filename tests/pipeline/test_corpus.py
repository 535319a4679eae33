"""Which files a corpus is, and how it is cut into parts."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Corpus
from pipeline.errors import ConfigError, DataError, InputError, PermissionDeniedError
from pipeline.safety.seals import canonical_json
from pipeline.text import corpus as corpora
from pipeline.text.corpus import SourceFile, TextPart, plan_corpus
from pipeline.text.cutting import SHARED_PARTS_A_BLOCK, cut_parts, group_tasks
from pipeline.text.inputs import refuse_inside
from pipeline.text.losses import ReadCounts
from pipeline.text.reading import Reading, read_part


def write(path: Path, data: bytes | str = "some text\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def planned(*inputs: Path | str, **options: object) -> list[str]:
    plan = plan_corpus(Corpus(inputs=[str(item) for item in inputs], **options))  # type: ignore[arg-type]
    return [file.path for file in plan.files]


@contextmanager
def without_privileges() -> Iterator[Path]:
    """A folder of an ordinary user; root can read everything, so root becomes nobody during the test."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        if os.geteuid() != 0:
            yield Path(name)
            return
        try:
            yield Path(name)
        finally:
            os.seteuid(0)


def drop_privileges() -> None:
    if os.geteuid() == 0:
        os.seteuid(65534)


# ── expanding ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_inputs_keep_their_order_and_each_is_sorted_by_name(tmp_path: Path) -> None:
    for name in ("b/2.txt", "b/1.txt", "b/sub/0.txt", "a.txt"):
        write(tmp_path / name, name)
    expected = [str(tmp_path / name) for name in ("b/1.txt", "b/2.txt", "b/sub/0.txt", "a.txt")]
    assert planned(tmp_path / "b", tmp_path / "a.txt") == expected


def test_globs_match_in_one_folder_and_across_folders_with_two_stars(tmp_path: Path) -> None:
    for name in ("x.txt", "y.md", "one/x.txt", "one/two/x.txt", "one/two/z.md"):
        write(tmp_path / name, name)
    assert planned(tmp_path / "*.txt") == [str(tmp_path / "x.txt")]
    assert planned(tmp_path / "**/*.txt") == [str(tmp_path / name) for name in ("one/two/x.txt", "one/x.txt", "x.txt")]
    assert planned(tmp_path / "*/x.txt") == [str(tmp_path / "one/x.txt")]
    assert len(planned(tmp_path / "**")) == 5
    assert planned(tmp_path / "o[mn]e") == [str(tmp_path / name) for name in ("one/two/x.txt", "one/two/z.md", "one/x.txt")]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("*.txt", ["x.txt"]), ("./*.txt", ["x.txt"]), ("x*", ["x.txt"]), ("[a-z].txt", ["x.txt"]), ("**/y.txt", ["one/y.txt"])],
)
def test_a_pattern_without_a_folder_matches_in_the_folder_where_the_program_runs(
    pattern: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "x.txt", "x")
    write(tmp_path / "one/y.txt", "y")
    monkeypatch.chdir(tmp_path)
    assert [os.path.normpath(path) for path in planned(pattern)] == found


def test_a_file_whose_name_looks_like_a_glob_is_read_as_named(tmp_path: Path) -> None:
    literal = write(tmp_path / "a[1].txt")
    write(tmp_path / "a1.txt")
    assert planned(literal) == [str(literal)]


def test_a_pattern_without_files_is_named_with_the_folder_it_was_looked_for_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no file matches \*\.txt \(looked from .*\); check the path"):
        planned("*.txt")
    with pytest.raises(InputError, match=r"no file matches .*/absent\.txt; check"):
        planned(tmp_path / "absent.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no file matches"):
        planned("empty")


@pytest.mark.parametrize("url", ["https://host/file.txt", "hdfs://host/x", "file:///x"])
def test_addresses_that_are_none_of_a_bucket_are_refused_with_what_to_do(url: str) -> None:
    with pytest.raises(ConfigError, match=r"corpus\.inputs: .*(download it first|expected s3://|write a local file as a path)"):
        planned(url)


def test_archives_are_refused_with_what_to_do(tmp_path: Path) -> None:
    for name in ("x.7z", "X.RAR", "x.txt.br"):
        with pytest.raises(InputError, match=rf"{name}: an archive or a compression .* unpack it"):
            planned(write(tmp_path / name))
    with pytest.raises(DataError, match=r"x\.tar\.gz: holds text, although its name says gzip; rename it"):
        planned(write(tmp_path / "x.tar.gz", "some text, not an archive\n"))


def test_a_parquet_file_among_lines_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set corpus\.format: parquet"):
        planned(write(tmp_path / "x.parquet"))


def test_hidden_backup_and_unfinished_files_are_left_out_and_noted_unless_named(tmp_path: Path) -> None:
    for name in ("kept.txt", ".hidden", "old.txt~", "#auto#", ".kept.txt.swp", "half.tmp", ".git/config"):
        write(tmp_path / name, name)
    plan = plan_corpus(Corpus(inputs=[str(tmp_path)]))
    assert [file.path for file in plan.files] == [str(tmp_path / "kept.txt")]
    assert any(note.startswith("6 hidden, marker, backup or unfinished files") for note in plan.notes)
    assert planned(tmp_path / ".hidden") == [str(tmp_path / ".hidden")]


def test_a_file_reached_twice_counts_once_and_is_noted(tmp_path: Path) -> None:
    first = write(tmp_path / "a.txt")
    os.link(first, tmp_path / "b.txt")
    plan = plan_corpus(Corpus(inputs=[str(tmp_path), str(first), str(tmp_path / "*.txt")]))
    assert [file.path for file in plan.files] == [str(first)]
    assert any("reached twice" in note for note in plan.notes)


def test_different_files_with_the_same_content_all_count_and_are_noted(tmp_path: Path) -> None:
    write(tmp_path / "a.txt"), write(tmp_path / "b.txt")
    plan = plan_corpus(Corpus(inputs=[str(tmp_path)]))
    assert len(plan.files) == 2
    assert any("1 file has the same content as another" in note for note in plan.notes)


def test_links_inside_a_folder_are_noted_not_followed(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside/secret.txt")
    write(tmp_path / "data/a.txt")
    (tmp_path / "data/link.txt").symlink_to(outside)
    (tmp_path / "data/folder").symlink_to(outside.parent)
    plan = plan_corpus(Corpus(inputs=[str(tmp_path / "data")]))
    assert [file.path for file in plan.files] == [str(tmp_path / "data/a.txt")]
    assert any(note.startswith("2 symbolic links were not followed") for note in plan.notes)
    assert planned(tmp_path / "data/link.txt") == [str(tmp_path / "data/link.txt")], "a link that is named is followed"


def test_followed_links_count_each_file_once_and_loops_end(tmp_path: Path) -> None:
    write(tmp_path / "a/x.txt", "x")
    write(tmp_path / "b/y.txt", "y")
    (tmp_path / "a/to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b/to_a").symlink_to(tmp_path / "a")
    (tmp_path / "a/self").symlink_to(tmp_path / "a")
    found = planned(tmp_path / "a", follow_symlinks=True)
    assert sorted(os.path.basename(path) for path in found) == ["x.txt", "y.txt"]
    found = planned(tmp_path / "a/**", follow_symlinks=True)
    assert sorted(os.path.basename(path) for path in found) == ["x.txt", "y.txt"]


def test_fifos_sockets_and_devices_are_noted_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.txt")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("socket")
        plan = plan_corpus(Corpus(inputs=["."], follow_symlinks=True))
    assert [file.path for file in plan.files] == ["./a.txt"]
    assert any(note.startswith("3 FIFOs, sockets or devices") for note in plan.notes)


def test_hostile_file_names_are_read_and_shown_escaped(tmp_path: Path) -> None:
    names = [b"-rf", b"new\nline.txt", b"latin\xe9.txt", b"x" * 250, "한국어.txt".encode(), b"esc\x1b[31m.txt"]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    plan = plan_corpus(Corpus(inputs=[str(tmp_path)]), known=tmp_path / "../known.json")
    assert sorted(os.fsencode(os.path.basename(file.path)) for file in plan.files) == sorted(names)
    write(tmp_path / "esc\x1b[31m.txt.7z")
    with pytest.raises(InputError, match=r"esc\\x1b\[31m\.txt\.7z"):
        planned(tmp_path)


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_unreadable_files_are_all_listed_before_any_work(tmp_path: Path) -> None:
    with without_privileges() as folder:
        write(folder / "open.txt")
        for index in range(23):
            os.chmod(write(folder / f"closed-{index:02d}.txt"), 0)
        drop_privileges()
        with pytest.raises(
            PermissionDeniedError, match=r"(?s)23 cannot be read.*skip_unreadable.*closed-00.*closed-19.*… and 3 more"
        ):
            planned(folder)


def test_unreadable_files_and_folders_are_left_out_and_listed_when_asked(tmp_path: Path) -> None:
    with without_privileges() as folder:
        write(folder / "open.txt")
        os.chmod(write(folder / "closed.txt"), 0)
        os.chmod(write(folder / "shut/inside.txt").parent, 0)
        drop_privileges()
        plan = plan_corpus(Corpus(inputs=[str(folder)], skip_unreadable=True))
        if os.getuid() == 0:
            os.seteuid(0)
        os.chmod(folder / "shut", 0o755)
    assert [os.path.basename(file.path) for file in plan.files] == ["open.txt"]
    assert any(note.startswith("2 unreadable files or folders were left out") for note in plan.notes)


@pytest.mark.parametrize("pattern", ["data", "data/**/*.txt", "."])
def test_a_workdir_inside_an_input_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data/a.txt")
    with pytest.raises(ConfigError, match="output inside input"):
        plan_corpus(Corpus(inputs=[pattern]), forbidden=tmp_path / "data/runs/demo")


def test_an_input_inside_the_workdir_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "runs/demo/a.txt")
    with pytest.raises(ConfigError, match="input inside output"):
        plan_corpus(Corpus(inputs=[str(file)]), forbidden=tmp_path / "runs/demo")
    assert plan_corpus(Corpus(inputs=[str(file)]), forbidden=tmp_path / "runs/demo2").files


# ── digests ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def aged(path: Path, seconds: int = 3600) -> Path:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - seconds * 10**9))
    return path


def test_a_remembered_digest_is_believed_only_while_the_file_is_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = aged(write(tmp_path / "data/a.txt", "one\n"))
    known = tmp_path / "known.json"
    options = {"known": known}
    monkeypatch.setattr(corpora, "RACY_NS", -60 * 10**9)  # the file's ctime is now, and the test does not sleep
    first = plan_corpus(Corpus(inputs=[str(file)]), **options).files[0]
    files = json.loads(known.read_text())["files"]
    files[str(file)][4] = "f" * 64
    known.write_text(json.dumps({"files": files, "sha256": hashlib.sha256(canonical_json(files)).hexdigest()}))
    assert plan_corpus(Corpus(inputs=[str(file)]), **options).files[0].sha256 == "f" * 64, "it was not read again"
    before = file.stat()
    write(file, "two\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = plan_corpus(Corpus(inputs=[str(file)]), **options).files[0]
    assert again.sha256 not in ("f" * 64, first.sha256), "same size and mtime, other bytes: ctime tells"


def test_a_young_file_is_not_remembered(tmp_path: Path) -> None:
    file, known = write(tmp_path / "data/a.txt"), tmp_path / "known.json"
    plan_corpus(Corpus(inputs=[str(file)]), known=known)
    assert json.loads(known.read_text())["files"] == {}


@pytest.mark.parametrize("damage", ["{broken", "[]", '{"files": {}, "sha256": "0"}'])
def test_a_damaged_memory_is_an_empty_one(tmp_path: Path, damage: str) -> None:
    file, known = write(tmp_path / "data/a.txt"), write(tmp_path / "known.json", damage)
    assert plan_corpus(Corpus(inputs=[str(file)]), known=known).files


def test_a_broken_parquet_file_is_named_at_planning(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.parquet: not an intact Parquet file"):
        planned(write(tmp_path / "x.parquet", b"PAR1 not really"), format="parquet")


# ── cutting ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def source(index: int, size: int, **options: object) -> SourceFile:
    digest = hashlib.sha256(f"{index} {size}".encode()).hexdigest()
    return SourceFile(f"f{index}", "plain", size, digest, 0, 0, **options)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Tokenizing:
    part: TextPart


def plan_of(sizes: list[int]) -> corpora.CorpusPlan:
    return corpora.CorpusPlan(tuple(source(index, size) for index, size in enumerate(sizes)))


@given(sizes=st.lists(st.integers(0, 200_000), max_size=60), block=st.integers(1 << 18, 1 << 20))
@settings(max_examples=100, derandomize=True, deadline=None)
def test_small_files_share_parts_that_cover_each_once_and_stay_below_the_block(sizes: list[int], block: int) -> None:
    parts = cut_parts(plan_of(sizes), block)
    pieces = [piece for part in parts for piece in part.pieces]
    assert sorted((piece.file.path, piece.start, piece.stop) for piece in pieces) == sorted(
        (f"f{index}", 0, size) for index, size in enumerate(sizes)
    )
    assert all(sum(piece.stop - piece.start for piece in part.pieces) <= block for part in parts)


LARGE = 1 << 16
"""A block for files that are large beside it."""


def text_of(lines: int, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(f"w{rng.randrange(5000)}" for _ in range(rng.randint(1, 30))) for _ in range(lines)]


def parts_of(path: Path, text: str, **options: object) -> list[TextPart]:
    path.write_text(text)
    return cut_parts(plan_corpus(Corpus(inputs=[str(path)], block_bytes=LARGE, **options)), LARGE)  # type: ignore[arg-type]


def keys(parts: list[TextPart]) -> set[str]:
    return {part.key for part in parts}


@pytest.mark.parametrize("separator", ["\n", " ", ""], ids=["lines", "one line", "no space"])
def test_parts_of_a_large_file_cover_every_byte_once_in_order_and_stay_near_the_block(tmp_path: Path, separator: str) -> None:
    text = separator.join(text_of(20_000)).replace(" ", separator)
    parts = parts_of(tmp_path / "x.txt", text, max_lost=1)
    stops = [piece.stop for part in parts for piece in part.pieces]
    assert [piece.start for part in parts for piece in part.pieces] == [0, *stops[:-1]]
    assert stops[-1] == len(text)
    sizes = [later - earlier for earlier, later in pairwise([0, *stops])]
    assert all(LARGE * 3 // 4 <= size <= LARGE * 5 // 4 for size in sizes[:-1])
    if separator == "\n":
        assert all(text[stop - 1] == "\n" for stop in stops[:-1])
        assert all(part.pieces[0].cut and part.pieces[0].cut.exact for part in parts)


@pytest.mark.turns(3, 1)
def test_an_edit_of_a_large_file_costs_its_neighbourhood(tmp_path: Path) -> None:
    """1.9 MB in parts of about 64 kB: words inserted, lines deleted, text added before and after."""
    lines, rng, path = text_of(20_000), random.Random(2), tmp_path / "x.txt"
    before = keys(parts_of(path, "\n".join(lines)))
    assert len(before) > 20
    costs = []
    for _ in range(40):
        at = rng.randrange(len(lines))
        edited = rng.choice([
            [*lines[:at], "a few new words", *lines[at:]], [*lines[:at], *lines[at + rng.randrange(40) :]],
            ["a new first line", *lines], [*lines, "a new last line"],
        ])  # fmt: skip
        costs.append(len(keys(parts_of(path, "\n".join(edited))) - before))
    assert sum(costs) / len(costs) < 1.5
    assert max(costs) <= 4
    moved = keys(parts_of(path, "\n".join(lines[2500:])))
    assert len(moved - before) <= 6, "old and new cuts meet again behind what was deleted"


@pytest.mark.parametrize("options", [{}, {"format": "jsonl"}], ids=["lines", "jsonl"])
@pytest.mark.turns(3, 1)
def test_the_same_text_is_cut_alike_whatever_stands_around_it_and_keys_say_so(tmp_path: Path, options: dict[str, str]) -> None:
    """The key of a part decides what it reads: parts with equal keys never read different text."""
    rng = random.Random(3)
    seen: dict[str, bytes] = {}
    for trial in range(12):
        lines = text_of(4_000, seed=trial % 2)
        for _ in range(rng.randrange(3)):
            lines[rng.randrange(len(lines))] = rng.choice(["", "x" * 3000, "new words"])
        text = "\n".join(json.dumps({"text": line}) for line in lines) if options else rng.choice("\n\n ").join(lines)
        for part in parts_of(tmp_path / "x", text, **options):
            reading = Reading(options.get("format", "lines"))
            read = b"".join(chunk.text for chunk in read_part(part, reading, ReadCounts()))
            assert seen.setdefault(part.key, read) == read
    assert len(seen) < 12 * 4


def test_large_files_come_in_an_order_that_names_do_not_change(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        (tmp_path / name).write_text("\n".join(text_of(3_000, seed)))
    corpus = Corpus(inputs=[str(tmp_path)], block_bytes=LARGE)
    before = [part.key for part in cut_parts(plan_corpus(corpus), LARGE)]
    (tmp_path / "a").rename(tmp_path / "z")
    assert [part.key for part in cut_parts(plan_corpus(corpus), LARGE)] == before
    assert len(before) > 6


def test_cuts_are_remembered_with_the_digest_for_the_block_they_were_made_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, known = tmp_path / "x.txt", tmp_path / "known.json"
    path.write_text("\n".join(text_of(6_000)))
    monkeypatch.setattr(corpora, "RACY_NS", -60 * 10**9)  # the file's ctime is now, and the test does not sleep
    corpora_of = [Corpus(inputs=[str(path)], block_bytes=block) for block in (LARGE, LARGE, LARGE // 2, 1 << 24)]
    plans = [plan_corpus(corpus, known=known) for corpus in corpora_of]
    monkeypatch.setattr(corpora, "cut_file", None)
    assert plan_corpus(corpora_of[-1], known=known) == plans[-1], "it is not read again"
    monkeypatch.undo()
    assert plans[0] == plans[1]
    assert plans == [plan_corpus(corpus) for corpus in corpora_of]
    assert [len(plan.files[0].cuts) > 1 for plan in plans] == [True, True, True, False]


def test_keys_are_of_content_never_of_names(tmp_path: Path) -> None:
    one = cut_parts(corpora.CorpusPlan((source(1, 5000),)), 1 << 20)[0]
    renamed = SourceFile("other/name", "plain", 5000, one.pieces[0].file.sha256, 77, 88)
    assert cut_parts(corpora.CorpusPlan((renamed,)), 1 << 20)[0].key == one.key


def test_a_file_added_in_the_middle_changes_few_of_the_parts() -> None:
    sizes = [(index * 7919) % 9000 for index in range(2000)]
    files = list(plan_of(sizes).files)
    before = {part.key for part in cut_parts(corpora.CorpusPlan(tuple(files)), 1 << 22)}
    files.insert(700, source(99_999, 5000))
    after = {part.key for part in cut_parts(corpora.CorpusPlan(tuple(files)), 1 << 22)}
    assert len(before) > 50
    assert len(after - before) <= 4, "packing settles again behind the new file"


def test_an_edit_costs_its_neighbourhood_and_a_renamed_file_nothing() -> None:
    """3.7 MB in 400 files with the default block size: what is tokenized again after one of them has changed."""
    files, block = list(plan_of([9_250] * 400).files), 16 << 20
    before = cut_parts(corpora.CorpusPlan(tuple(files)), block)
    costs = []
    for place in range(0, 400, 10):
        edited = [*files[:place], source(50_000 + place, 9_250), *files[place + 1 :]]
        again = [part for part in cut_parts(corpora.CorpusPlan(tuple(edited)), block) if part.key not in {p.key for p in before}]
        costs.append(sum(piece.file.size for part in again for piece in part.pieces))
    assert sum(costs) / len(costs) < 2 * block / SHARED_PARTS_A_BLOCK
    renamed = [replace(file, path=f"{399 - index:03}-renamed") for index, file in enumerate(files)]
    after = cut_parts(corpora.CorpusPlan(tuple(sorted(renamed, key=lambda file: file.path))), block)
    assert [part.key for part in after] == [part.key for part in before]


def test_many_small_parts_make_few_tasks() -> None:
    block = 16 << 20
    tasks = [Tokenizing(part) for part in cut_parts(plan_of([20_000] * 5_000), block)]
    groups = group_tasks(tasks, block)
    assert [task for group in groups for task in group] == tasks
    assert len(tasks) > 80
    assert len(groups) < 45
    assert all(sum(piece.file.size for task in group for piece in task.part.pieces) <= block // 4 for group in groups)


def test_tiny_files_share_parts() -> None:
    parts = cut_parts(plan_of([20] * 20_000), 32 << 20)
    assert len(parts) <= 80


def test_parquet_is_cut_between_row_groups(tmp_path: Path) -> None:
    table = pa.table({"text": [f"line {index} " * 20 for index in range(1000)]})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=100)
    plan = plan_corpus(Corpus(inputs=[str(tmp_path / "x.parquet")], format="parquet"))
    group = plan.files[0].row_groups[0]
    pieces = [part.pieces[0] for part in cut_parts(plan, 3 * group + group // 2)]
    assert [(piece.start, piece.stop) for piece in pieces] == [(0, 3), (3, 6), (6, 9), (9, 10)]
    assert stat.S_ISREG(os.stat(plan.files[0].path).st_mode)


@pytest.mark.slow
@pytest.mark.turns(5, 3, of="large")
def test_ten_thousand_tiny_files_become_a_few_parts(tmp_path: Path) -> None:
    for folder in range(50):
        (tmp_path / f"{folder:03d}").mkdir()
        for index in range(200):
            (tmp_path / f"{folder:03d}/{index:03d}").write_bytes(b"%09d %09d\n" % (folder, index))
    plan = plan_corpus(Corpus(inputs=[str(tmp_path)]))
    assert len(plan.files) == 10_000
    assert len(cut_parts(plan, 32 << 20)) < 40


def test_the_root_of_the_file_system_is_no_workdir_of_files_in_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lies inside run.workdir /: input inside output"):
        refuse_inside([str(tmp_path / "a.txt")], Path("/"))
