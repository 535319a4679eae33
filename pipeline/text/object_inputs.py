"""The addresses of the objects that an input in a bucket names, each once: an object, a glob with `**`, or all below a folder.

The rules are those for files (inputs.py): the same names are left out, and everything left out is noted. A bucket has no
folders; each part of a key between two slashes counts as one.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence

from pipeline.errors import ConfigError, InputError, printable
from pipeline.options.storage import Storage
from pipeline.storage.addresses import Address, parse_address
from pipeline.storage.objects import exists, listing, require_bucket
from pipeline.text.inputs import HIDDEN, MAGIC, Search, fixed_head, hidden
from pipeline.text.sources import KEY


def find_objects(pattern: str, search: Search, storage: Storage, forbidden: Address | None) -> list[str]:
    """The addresses of the objects that one input names and no earlier input named, sorted by key.

    `forbidden` is the address of the workdir. Raises InputError when the input matches no object at all, ConfigError when it
    contains `forbidden` or lies inside it, and the errors of `storage.failures` when the bucket cannot be reached.
    """
    place = parse_address(pattern, KEY)
    require_bucket(place, storage)
    found: list[str] = []
    before = sum(search.left_out.values())
    for address in _expand(place, search, storage, folder=pattern.endswith("/")):
        if forbidden and forbidden.holds(address):
            raise ConfigError(
                f"{KEY}: {printable(pattern, 300)} names objects inside run.workdir {forbidden}, so the run would read what it "
                "writes; choose another run.workdir or a narrower input"
            )
        text = str(address)
        if text in search.seen_objects:
            search.leave_out("objects|object were|was named by two inputs and are|is counted once", text)
        else:
            search.seen_objects.add(text)
            found.append(text)
    if not found and sum(search.left_out.values()) == before:
        raise InputError(f"{KEY}: no object matches {printable(pattern, 300)}; check the key, or list the bucket")
    if not found and not search.seen_objects:
        notes = "".join(f"\n  {note}" for note in search.notes())
        raise InputError(f"{KEY}: every object that matches {printable(pattern, 300)} was left out{notes}")
    return found


def _expand(place: Address, search: Search, storage: Storage, *, folder: bool) -> Iterator[Address]:
    if place.key and not folder and exists(place, storage):
        yield place
        return
    if not MAGIC.search(place.key):
        for key in _visible(place, place.key, search, storage):
            yield place.at(key)
        return
    head = "" if (fixed := fixed_head(place.key)) == "." else fixed
    steps = place.key[len(head) :].strip("/").split("/")
    for key in _visible(place.at(head), head, search, storage, steps):
        yield place.at(key)


def _visible(place: Address, head: str, search: Search, storage: Storage, pattern: Sequence[str] = ()) -> Iterator[str]:
    """The keys below `head` that match and are read. A key below a hidden folder is noted once, under that folder's name."""
    noted: set[str] = set()
    for found in listing(place, storage):
        steps = found.key[len(head) :].strip("/").split("/")
        if pattern and not _matches(steps, pattern):
            continue
        # As in shells, only a literal dot matches a leading dot; such names do not match at all, so they are not noted either.
        shown = next((number for number, step in enumerate(steps[:-1]) if hidden(step)), None)
        if shown is not None:
            folder = str(place.at("/".join([head, *steps[: shown + 1]]).strip("/")))
            if folder not in noted:
                noted.add(folder)
                search.leave_out(HIDDEN, folder)
        elif problem := search.chosen.problem(found.key):
            search.leave_out(problem, str(place.at(found.key)))
        else:
            yield found.key


def _matches(steps: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the key's steps match; `**` stands for any number of steps, and a matching folder includes everything below it."""
    if not pattern:
        return True
    if not steps:
        return False
    first, rest = pattern[0], pattern[1:]
    if first == "":
        return _matches(steps, rest) if rest else True
    if first == "**":
        return _matches(steps, rest or ["*"]) or _matches(steps[1:], pattern)
    if steps[0].startswith(".") and not first.startswith("."):
        return False
    return fnmatch.fnmatchcase(steps[0], first) and _matches(steps[1:], rest)
