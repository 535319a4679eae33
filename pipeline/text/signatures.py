"""What a file is by its first bytes, whatever its name, so that no archive, table or web page is read as sentences.

Foreign formats are recognised by puremagic; this module knows only the formats this program reads itself, text in UTF-16 and
UTF-32, and text that is not sentences (JSON, tables, HTML, a Git LFS pointer). `corpus.sniff: false` reads them anyway.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from pipeline.text import foreign_text
from pipeline.text.alphabets import better_reading
from pipeline.text.encodings import UTF8, fitting_encoding, has_line_ends, invalid_share, is_mixed
from pipeline.text.folding import ENTITY
from pipeline.text.losses import percent
from pipeline.text.unlike_ascii import WIDE, reads_as, shifting, wide

HEAD_BYTES = 1 << 16
_GUESS_BYTES = 1 << 15
CONTAINERS = {
    b"\x1f\x8b\x08": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz", b"\x04\x22\x4d\x18": "lz4", b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip", b"PAR1": "parquet", b"ARROW1\0\0": "arrow", b"\xff\xff\xff\xff": "arrow",
}  # fmt: skip
"""Formats this program reads, by their leading bytes; bzip2 and tar have rules of their own."""
ENTITIES = "hold|holds HTML entities (&amp;), whose names become words unless tokenize.entities is true"
SUFFIX = {"gzip": ".gz", "zstd": ".zst", "xz": ".xz", "lz4": ".lz4", "bz2": ".bz2", "zip": ".zip", "tar": ".tar"}
_MARK = b"\xef\xbb\xbf"
_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")
_CONTROL = bytes(set(range(0x20)) - set(b"\t\n\v\f\r\x1b\x1c\x1d\x1e\x1f\0"))
_JSON = re.compile(rb'\s*(?:\[\s*)*\{\s*"[^"\n]{0,200}"\s*:')
_MARKUP = re.compile(rb"<!doctype\s|<html\b|<\?xml\b|<head\b|<svg\b", re.IGNORECASE)
_ELEMENT = re.compile(rb"<[A-Za-z][\w:.-]*(\s+[\w:.-]+\s*=\s*[\"'][^<>]*)?\s*/?>")
_LEADING = re.compile(rb"(?:<([A-Za-z][\w:.-]*)(?:\s[^<>]*)?>|</[^<>]*>|<!--(?s:.*?)-->)\s*")
_VOID = (b"img", b"br", b"hr")
_TAG = re.compile(rb"</(?!s>)[A-Za-z][\w:.-]*\s*>|<[A-Za-z][\w:.-]*\s*/>|<(?:br|hr|p|li|td)>", re.IGNORECASE)
"""Tags that end an element, or that often stand alone; </s> ends a sentence in many corpora."""
_TAGS_APART = 500
"""Bytes between two tags on average, at most, in what is markup rather than a text with a few tags."""
_OTHER_ENDS = re.compile(rb"[^\0]\0[^\0]|\xc2\x85|\xe2\x80[\xa8\xa9]|[\v\f]")
_COLUMN_NAME = re.compile(r"[^\W\d][\w.-]{0,39}")
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?")
_BINARY_SHARE, _FOREIGN_SHARE = 0.02, 0.3
_DOCUMENTS = (b"%PDF", b"%!PS", b"{\\rtf", b"{\\pwi", b"!<arch>\n", b"070701", b"070707")
"""How documents and archives begin that may be ASCII throughout."""
_BINARY_BEGIN = 64
"""Bytes within which a binary format whose signature is letters has a NUL or a control character."""
_LETTERS = bytes(set(b"\t\n\v\f\r") | set(range(0x20, 0x7F)))
_ROWS = 20
_CERTAINLY_UTF8 = 5
"""So many characters outside ASCII that are valid UTF-8 are no accident in any other encoding."""
_ARRAYS = re.compile(rb"\x93NUMPY|(?s:.{4})\0{4}\{\"")
"""How NumPy's files and safetensors begin."""
_OTHER_FORMATS = {
    b"FEA1": "a Feather file of version 1", b"PARE": "a Parquet file with an encrypted footer",
    b"Obj\x01": "an Avro file", b"ORC": "an ORC file", b"\xff\x06\0\0sNaPpY": "a Snappy file", b"\x89LZO\0": "an LZO file",
}  # fmt: skip
"""Binary formats that puremagic does not know, by their leading bytes."""
_POINTERS = (
    (re.compile(rb"version https://(?:git-lfs|hawser)\.github\.com/spec/"),
     "is a Git LFS pointer, not the file itself; fetch it with git lfs pull"),
    (re.compile(rb"/annex/objects/|(?:\.\./)*\.git/annex/objects/"),
     "is a git-annex pointer, not the file itself; fetch it with git annex get"),
    (re.compile(rb"outs:\r?\n- (?:md5|etag|hash|checksum|size):"),
     "is a DVC pointer, not the file itself; fetch it with dvc pull"),
)  # fmt: skip
_PICKLE = re.compile(rb"\((?:[ld]p\d+\n|[VS][^\n]*\np\d+\n)|c[A-Za-z_][\w.]*\n[A-Za-z_]\w*\np\d+\n")
"""How a protocol-0 (ASCII) pickle begins: a list, a dict, a tuple of text, or a class, each followed by its memo number."""


@dataclass(frozen=True)
class Finding:
    """What the head of a file shows."""

    problem: str | None = None
    """Why it cannot be read in this format, and what to do."""
    remarks: tuple[str, ...] = ()
    """What the user should know although it can be read."""
    carriage_returns: bool = False
    """Lines end with a bare CR."""
    whole: bool = False
    """It cannot be cut between lines."""


def container(head: bytes) -> str | None:
    """The compression, archive or table format, of those this program reads, that the bytes begin."""
    if re.match(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)", head):
        return "bz2"
    if head[257:262] == b"ustar" or _is_old_tar(head):
        return "tar"
    return next((kind for magic, kind in CONTAINERS.items() if head.startswith(magic)), None)


def _is_old_tar(head: bytes) -> bool:
    """Whether a tar header without the magic of 1988 begins the bytes: its checksum is right."""
    found = re.match(rb" *([0-7]{1,7})[\0 ]", head[148:156])
    return found is not None and int(found[1], 8) == sum(head[:148]) + sum(head[156:512]) + 8 * 0x20


def examine(head: bytes, format: str, encoding: str) -> Finding:
    """The finding about the first decompressed bytes of a text."""
    if encoding == UTF8:
        return _examine_utf8(head, format, "UTF-8")
    if problem := _contradiction(head, encoding):
        return Finding(problem)
    try:
        text = codecs.getincrementaldecoder(encoding)("replace").decode(head).encode("utf-8", "surrogatepass")
    except UnicodeError:
        return Finding(f"cannot be decoded as {encoding}; set corpus.encoding to what it is")
    found = _examine_utf8(text, format, encoding)
    remarks = found.remarks
    if better := better_reading(head[:_GUESS_BYTES], encoding):
        remarks += (f"read|reads better as {better} than as {encoding}, which corpus.encoding says: look at the words",)
    elif not encoding.startswith("utf") and foreign_text.is_sandwiched(text.decode("utf-8", "replace")):
        remarks += (f"have|has East Asian characters inside words, as text has that is wrongly read as {encoding}: look at them",)
    whole = found.carriage_returns or format not in ("lines", "tsv") or not has_line_ends(encoding)
    return Finding(found.problem, remarks, found.carriage_returns, whole)


def _examine_utf8(head: bytes, format: str, expected: str) -> Finding:
    """The finding about text that was in the encoding `expected` and is in UTF-8 now."""
    problem = _marked(head, expected) or _wide(head, expected) or _binary(head) or _no_sentences(head, format)
    if problem:
        return Finding(problem)
    remarks = foreign_text.remarks(head, _a_few(head)) if format == "lines" else []
    if format == "lines" and len(ENTITY.findall(head[:HEAD_BYTES].decode("utf-8", "replace"))) > _a_few(head):
        remarks.append(ENTITIES)
    if format == "lines" and len(_TAG.findall(head)) > _a_few(head):
        remarks.append("hold|holds HTML or XML tags (<br />), whose names become words; take them out of the text first")
    if format == "lines" and b"\n" not in head and b"\r" not in head and len(_OTHER_ENDS.findall(head)) > 1:
        remarks.append(
            "have|has no line end, but U+2028, NEL, NUL or form feeds, which end no sentence here; make them line ends first"
        )
    carriage_returns = head.count(b"\r") > 1 and b"\n" not in head
    if carriage_returns:
        remarks.append("end|ends every line with CR alone, as old Macs did, and are|is read that way")
    return Finding(None, tuple(remarks), carriage_returns, carriage_returns or not _a_line_a_record(head, format))


def _a_few(head: bytes) -> int:
    return max(2, len(head) // 4000)


def _contradiction(head: bytes, encoding: str) -> str | None:
    """Why bytes are not in `encoding`, which is not UTF-8; None if they may be."""
    if encoding not in WIDE:
        if (problem := _marked(head, encoding) or _wide(head, encoding)) and shifting(head) != encoding:
            return problem
    elif (name := wide(head)) and encoding != name and not (encoding == name[:6] and head.startswith((*_MARKS, b"\xff\xfe\0\0"))):
        return f"looks like {name.upper()}, expected {encoding}; set corpus.encoding: {name}"
    if encoding.startswith(("utf-8", "utf_8", "utf-7")) or invalid_share(head):
        return None
    others = sum(byte >= 0xC0 for byte in head)
    if head.startswith(_MARK) or others >= _CERTAINLY_UTF8 or (encoding in WIDE and b"\0" not in head):
        return f"is UTF-8, expected {encoding}; leave corpus.encoding out"
    return None


def _marked(head: bytes, expected: str) -> str | None:
    if not head.startswith(_MARKS):
        return None
    return f"starts with a UTF-16 or UTF-32 byte order mark, expected {expected}; set corpus.encoding: " + (
        "utf-32" if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")) else "utf-16"
    )


def _wide(head: bytes, expected: str) -> str | None:
    if _begins_binary(head) and other_format(head):
        return None
    if name := wide(head):
        return f"looks like {name.upper()} (every second byte or more is NUL), expected {expected}; set corpus.encoding: {name}"
    return _reads_well(reads_as(head, "utf-32-le", "utf-32-be") if b"\0" in head else shifting(head), expected)


def _reads_well(name: str | None, expected: str = "UTF-8") -> str | None:
    return name and f"reads well as {name.upper()}, expected {expected}; set corpus.encoding: {name}"


def _binary(head: bytes) -> str | None:
    """Why bytes that are not text are refused; None for text."""
    head = head.removeprefix(_MARK)
    control = len(head) - len(head.translate(None, _CONTROL))
    foreign = invalid_share(head)
    begin = head.lstrip()
    if control == 0 and b"\0" not in head and foreign == 0 and not begin.startswith(_DOCUMENTS):
        return None
    found = _named(head) or _named(begin)
    # Any two letters of ASCII are a letter in UTF-16, so only what can hardly be UTF-8 is taken for it.
    odd = max(foreign, control / max(1, len(head))) > _BINARY_SHARE
    if found is None and odd and (problem := _reads_well(reads_as(head, "utf-16-le", "utf-16-be"))):
        return problem
    text = control <= _BINARY_SHARE * len(head) and not _begins_binary(head)
    if found is None and text and foreign <= _FOREIGN_SHARE:
        return None
    if found is None and text and is_mixed(head):
        return "is UTF-8 in some of its lines only; convert the others"
    if found is None and text and (fitting := fitting_encoding(head)):
        return f"is not UTF-8; its bytes read well as {fitting}: set corpus.encoding: {fitting}"
    if found is None and foreign == 0 and b"\0" not in head:
        byte, count = Counter(byte for byte in head if byte in _CONTROL).most_common(1)[0]
        return (
            f"holds control characters, most often byte {byte:#04x} ({percent(count / len(head))} of its bytes), and would be "
            "read as text; replace them by spaces or tabs first, or leave it out with corpus.exclude"
        )
    what = f"looks like {found}" if found else "holds binary data"
    return f"{what} and would be read as text; extract its text first, or leave it out with corpus.exclude"


def _begins_binary(head: bytes) -> bool:
    """Whether NUL and another control character are at the beginning, as in the headers of binary formats that are mostly NUL."""
    first = head[:_BINARY_BEGIN]
    return b"\0" in first and first != first.translate(None, _CONTROL)


def other_format(head: bytes) -> str | None:
    """The name of a binary format of those that puremagic does not know."""
    return next((name for magic, name in _OTHER_FORMATS.items() if head.startswith(magic)), None)


def _named(head: bytes) -> str | None:
    """The format's name by a puremagic signature of at least three bytes; None if there is none."""
    import puremagic

    if _ARRAYS.match(head):
        return "an array of numbers (.npy or .safetensors)"
    if _begins_binary(head) and (name := other_format(head)):
        return name
    try:
        matches = puremagic.magic_string(head)
    except (puremagic.PureError, ValueError):
        return None
    # NUL alone says nothing: files with holes are full of it. Signatures of letters (`This is `, `From`, `DVD`) begin texts, too,
    # and text may hold a control character or bytes of another encoding further on.
    first = head[:_BINARY_BEGIN]
    letters_do = head.startswith(_DOCUMENTS) or first != first.translate(None, _CONTROL + b"\0")
    strong: list[Any] = [
        match
        for match in matches
        if len((match.byte_match or b"").strip(b"\0")) >= 3 and (letters_do or match.byte_match.translate(None, _LETTERS))
    ]
    return f"a {strong[0].extension or 'binary'} file ({strong[0].name})" if strong else None


def _no_sentences(head: bytes, format: str) -> str | None:
    """Why text of a kind that this format does not read is refused; None for sentences."""
    head = head.removeprefix(_MARK)
    if _PICKLE.match(head):
        return "looks like a Python pickle (protocol 0) and would be read as text; write its texts to a file first"
    if pointer := next((found for begin, found in _POINTERS if begin.match(head)), None):
        return pointer
    if format == "lines" and (problem := foreign_text.problem(head)):
        return problem
    if _is_markup(head):
        return "looks like HTML or XML, whose tags would become words; extract its text first"
    if format == "jsonl":
        return _no_json(head)
    if _JSON.match(head) or _later_json(head):
        return "looks like JSON, whose keys would become words; set corpus.format: jsonl and corpus.text_field"
    table = _table(head)
    if format == "lines" and table:
        return (
            f"looks like a table ({table.upper()}), whose columns would become words; set corpus.format: {table} and "
            "corpus.text_field"
        )
    return None


def _no_json(head: bytes) -> str | None:
    if head.lstrip(b" \t\r\n\x1e")[:1] in (b"", b"{", b"[", b'"'):
        return None
    if _later_json(head):
        return "does not begin with JSON, although later lines hold it; take out what stands before"
    return f"holds no JSON; set corpus.format: {_table(head) or 'lines'}"


def _later_json(head: bytes) -> bool:
    """Whether most of the first lines begin an object, as in JSON lines behind a comment."""
    lines = head.split(b"\n", _ROWS)[:_ROWS]
    return 2 * sum(_JSON.match(line) is not None for line in lines) > len(lines)


def _is_markup(head: bytes) -> bool:
    """Whether the bytes begin a document of HTML or XML, or an element whose attributes or many tags would become words. Text
    after its end, as in Markdown that begins with a picture, is text with a few tags."""
    begin = head.lstrip()
    while begin.startswith(b"<!--"):
        begin = begin.partition(b"-->")[2].lstrip()
    if _MARKUP.match(begin):
        return True
    element = _ELEMENT.match(begin)
    if element is None:
        return False
    after = _after_elements(begin)
    only_tags = element[1] and (not after or after.startswith(b"<"))
    return len(_TAG.findall(head)) > (0 if only_tags else len(head) // _TAGS_APART)


def _after_elements(begin: bytes) -> bytes:
    """What follows the elements and comments that the bytes begin with; nothing, if the last of them does not end."""
    at = 0
    while found := _LEADING.match(begin, at):
        at = found.end()
        if found[1] and not found[0].rstrip().endswith(b"/>") and found[1].lower() not in _VOID:
            end = begin.find(b"</" + found[1], at)
            if end < 0:
                return b""
            at = end
    return begin[at:]


def _table(head: bytes) -> str | None:
    """csv or tsv when the first lines are rows of one width under a header of names."""
    lines = head.decode("utf-8", "replace").splitlines()[: _ROWS + 1]
    lines = [line for line in lines[: len(lines) - (len(head) >= HEAD_BYTES)] if line.strip()]
    if lines and lines[0].lstrip('\ufeff"').casefold().startswith("sep="):  # Excel's, before the header
        del lines[0]
    if len(lines) < 3:
        return None
    for delimiter, name in (("\t", "tsv"), (",", "csv"), (";", "csv"), ("|", "csv")):
        if delimiter not in lines[0]:
            continue
        try:
            rows = list(csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE if name == "tsv" else csv.QUOTE_MINIMAL))
        except csv.Error:
            continue
        names = _are_names(rows)
        header = rows[0]
        # A quoted cell may hold line ends, so that the last rows can be cut.
        if names and all(len(row) == len(header) for row in rows[1:-1]) and len(rows) > 2:
            return name
    return None


def _are_names(rows: list[list[str]]) -> bool:
    """Whether the first of the rows names the columns: words, or several words each over a column of numbers among others."""
    header = [cell.strip() for cell in rows[0]]
    if len(set(header)) < len(header) or not all(_COLUMN_NAME.fullmatch(cell.replace(" ", "_")) for cell in header):
        return False
    numbers = any(all(_NUMBER.fullmatch(cell.strip()) for cell in column) for column in zip(*rows[1:], strict=False))
    return numbers or all(map(_COLUMN_NAME.fullmatch, rows[0]))


def _a_line_a_record(head: bytes, format: str) -> bool:
    """Whether every line is complete in itself."""
    if format in ("csv", "tsv"):
        return format == "tsv"
    if format != "jsonl":
        return True
    first = head.removeprefix(_MARK).lstrip().split(b"\n", 1)[0].strip()
    return first.startswith(b"{") and (first.endswith(b"}") or len(first) > HEAD_BYTES // 2)
