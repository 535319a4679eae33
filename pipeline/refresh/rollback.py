"""`w2v rollback`: makes an earlier snapshot the champion again, atomically."""

from __future__ import annotations

from typing import Any

from pipeline import store
from pipeline.config import RunConfig
from pipeline.errors import DamagedError, InputError, StorageError, printable
from pipeline.history.arrival import is_empty
from pipeline.history.latest import champion_of, decide, entries, last_entry, line_of
from pipeline.history.snapshot import SNAPSHOTS, Snapshot, open_snapshot, read_summary, snapshots
from pipeline.session import holding
from pipeline.stages.publish import send_exports
from pipeline.summary import write_summary
from pipeline.tracking.aliases import move_alias

DAMAGED = "damaged"
"""Key of a decision that was taken because the champion is damaged: what was in it is made again as soon as possible."""


def rollback(config: RunConfig, wanted: str | None) -> dict[str, Any]:
    """Makes a snapshot the champion and returns the entry of the decision. Raises InputError if there is no such snapshot,
    StorageError if it is damaged.

    The registered model's alias `champion` follows, at once or once MLflow answers; `registry` says which. `wanted` is an id, the
    beginning of one, or the number of a decision; None means the champion before this one. A rollback that was cut off after its
    decision is finished by that: who gives the same command again still goes back by one.
    """
    nothing = InputError(f"{config.workdir}: no finished run here, so nothing to go back to")
    if is_empty(config):
        raise nothing
    with holding(config):
        champion = champion_of(config.workdir)
        if champion is None:
            raise nothing
        entry = _cut_off(config, champion) if wanted is None else {}
        chosen = champion if entry else _find(config, champion, wanted)
        _require_intact(chosen)
        if not entry:
            facts = {"snapshot": chosen.id, "status": "rolled back", "before": champion.id, "run_id": chosen.body["run_id"]}
            entry = decide(config.workdir, "rollback", chosen.id, facts)
        entry |= {"registry": move_alias(config, chosen.vectors, why=f"w2v rollback to snapshot {chosen.id}")}
        write_summary(config.workdir, chosen.summary())  # after the alias: the next refresh does again what came after a kill
        send_exports(config, store.load_artefact(chosen.exports))
        return entry


def step_back(config: RunConfig, champion: Snapshot, damage: str) -> Snapshot | None:
    """Makes the last intact champion before a damaged one champion, for who holds the workdir and has something to compare with
    it; None, and nothing is changed, if there is none."""
    for name in reversed(line_of(entries(config.workdir), champion.id)[:-1]):
        found = open_snapshot(config.workdir / SNAPSHOTS / name)
        if found and not _damage_of(found):
            facts = {"snapshot": found.id, "status": "rolled back", "before": champion.id, "run_id": found.body["run_id"]}
            decide(config.workdir, "rollback", found.id, facts | {"why": f"{champion.id} is damaged: {damage}", DAMAGED: damage})
            return found
    return None


def _cut_off(config: RunConfig, champion: Snapshot) -> dict[str, Any]:
    """The last decision, if it is a rollback after which `summary.json` is still the one of before; otherwise empty."""
    last = last_entry(config.workdir)
    before = open_snapshot(config.workdir / SNAPSHOTS / str(last.get("before")))
    if last.get("kind") != "rollback" or last["champion"] != champion.id or before is None or before.id == champion.id:
        return {}
    try:
        summary = read_summary(config.workdir)
    except StorageError:
        return {}
    same = summary is not None and summary.get("vectors", {}).get("sha256") == before.body["vectors_sha256"]
    return last if same else {}


def _find(config: RunConfig, champion: Snapshot, wanted: str | None) -> Snapshot:
    there = {snapshot.id: snapshot for snapshot in snapshots(config.workdir)}
    decisions = entries(config.workdir)
    if wanted is None:
        found = [name for name in line_of(decisions, champion.id)[:-1] if name in there][-1:]
    elif wanted.isdecimal() and any(entry["number"] == int(wanted) for entry in decisions):
        found = [entry.get("snapshot", entry["champion"]) for entry in decisions if entry["number"] == int(wanted)]
    else:
        found = [name for name in there if name.startswith(wanted)]
    kept = f"there are: {', '.join(there) or 'none'} (w2v history)"
    if wanted == "":
        raise InputError(f"rollback: SNAPSHOT is an empty text; {kept}")
    if len(found) == 1 and found[0] in there:
        return there[found[0]]
    if len(found) == 1:
        raise InputError(f"{config.workdir}: snapshot {found[0]} of decision {wanted} is damaged or was removed; {kept}")
    what = "no champion before this one" if wanted is None else f"no snapshot {printable(wanted, 40)}"
    if found:
        what = f"{len(found)} snapshots begin with {printable(str(wanted), 40)}; give more of the name"
    raise InputError(f"{config.workdir}: {what}; {kept}")


def _require_intact(chosen: Snapshot) -> None:
    if damage := _damage_of(chosen):
        raise StorageError(f"{damage[0]}; the champion stays, choose another snapshot")


def _damage_of(snapshot: Snapshot) -> list[str]:
    damage = [snapshot.damage()] if snapshot.damage() else []
    for directory in snapshot.lasting():
        try:
            damage += store.find_damage(store.load_artefact(directory))
        except DamagedError as error:
            damage.append(str(error))
    return damage
