"""A plan as text for people (tables, what would not fit, and what to change) and as plain data."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from pipeline.errors import amount, counted
from pipeline.planning.estimate import Plan, Taken
from pipeline.planning.forecast import Forecast, speedups

GOOD_SHARE = 0.8
"""Share of linear speed-up from which on more hosts are worthwhile."""
WORD_BYTES = 28
"""What a worker needs per word besides the matrices: the noise table, counts and rates."""


def as_text(plan: Plan, taken: Taken | None) -> str:
    """Tables for a terminal."""
    return "\n".join([*_text_lines(plan), "", *_here_lines(plan, taken), "", *_hosts_lines(plan), "", *_verdict(plan)])


def _text_lines(plan: Plan) -> list[str]:
    text, sample, speeds = plan.text, plan.sample, plan.speeds
    seen = sample.stored_bytes / max(1, sample.corpus_bytes)
    about = "all of it read" if seen > 0.999 else f"{seen:.1%} of it read as a sample"
    ns = f"training takes {speeds.train_s * 1e9:.0f} ns per kept token on one thread"
    many = f"{speeds.cores} threads on one copy keep {speeds.threads_kept:.0%} of that speed each"
    between = f"{1e9 * speeds.merging.send_s:.2f} ns per byte between hosts"
    return [
        f"corpus    {amount(text.stored_bytes)} in {counted(sample.files, 'files|file')}, {about}",
        f"          {_count(text.tokens)} tokens, {_count(text.kept_tokens)} kept per epoch; {_count(text.words)} words of "
        f"{_count(text.distinct_words)}",
        f"machine   {counted(speeds.cores, 'cores|core')}; {ns}; {many}; {between}",
    ]


def _here_lines(plan: Plan, taken: Taken | None) -> list[str]:
    here = plan.here
    title = f"{'on this machine':18}{'time':>10}{'disk':>10}"
    lines = [title + (f"{'last run':>14}{'disk':>10}" if taken else "")]
    for stage in here.stages:
        line = f"  {stage.name:16}{_time(stage.seconds):>10}{amount(stage.disk_bytes) if stage.disk_bytes else '':>10}"
        if taken:
            seconds, size = taken.seconds.get(stage.name), taken.disk_bytes.get(stage.name)
            line += f"{_time(seconds) if seconds is not None else '':>14}{amount(size) if size else '':>10}"
        lines.append(line.rstrip())
    line = f"  {'all':16}{_time(here.seconds):>10}{amount(here.disk_bytes):>10}"
    if taken:
        line += f"{_time(sum(taken.seconds.values())):>14}{amount(sum(taken.disk_bytes.values())):>10}"
    lines.append(line)
    memory = f"  memory          {amount(here.worker_bytes)}, at most {amount(_most_memory(plan, here))}"
    if taken and taken.memory_bytes:
        memory += f"; the last run's {amount(taken.memory_bytes)}"
    lanes = f"{counted(here.lanes, 'lanes|lane')} on {_copies(here)}"
    return [*lines, memory, f"  {lanes}, checkpoints {amount(here.memory.disk_bytes)} besides while it trains"]


def _hosts_lines(plan: Plan) -> list[str]:
    asked, first = plan.asked, plan.there[0]
    money = f"{'money':>11}" if asked.price is not None else ""
    lines = [
        f"hosts of {first.machines.cores} cores, {asked.gbit_s:g} Gbit/s between them (train.copies = hosts)",
        f"{'hosts':>7}{'lanes':>7}{'all':>10}{'training':>10}{'merging':>10}{'merges':>14}{'a merge':>10}{'between hosts':>15}"
        f"{'memory':>10}{'of linear':>11}{money}",
    ]
    for each, share in zip(plan.there, speedups(plan.there), strict=True):
        merges = max(1, each.traffic.merges)
        between = f"{amount(round(each.bytes_a_second))}/s" if each.traffic.sent_bytes else "–"
        merge = amount(each.traffic.sent_bytes // merges) if each.traffic.sent_bytes else "–"
        line = (
            f"{each.machines.hosts:>7}{each.lanes:>7}{_time(each.seconds):>10}{_time(each.train_s):>10}"
            f"{_time(each.traffic.seconds):>10}{each.traffic.merges:>14,}{merge:>10}{between:>15}{amount(each.worker_bytes):>10}"
            f"{share:>10.0%} "
        )
        lines.append(line + (f"{cost(plan, each):>11,.2f}" if asked.price is not None else ""))
    return [line.rstrip() for line in lines]


def cost(plan: Plan, each: Forecast) -> float:
    return (plan.asked.price or 0.0) * each.machines.hosts * each.seconds / 3600


# ── shortfalls ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _verdict(plan: Plan) -> list[str]:
    found = shortfalls(plan)
    fits = ["does not fit:", *(f"  {line}" for line in found)] if found else ["it fits: memory and disk are enough"]
    return [*fits, *(f"not known: {line}" for line in plan.unknown)]


def shortfalls(plan: Plan) -> list[str]:
    """One sentence per limit that the run would exceed, with what to change."""
    found = [*_memory_shortfall(plan), *_disk_shortfall(plan), *_hosts_shortfall(plan)]
    for each, share in zip(plan.there, speedups(plan.there), strict=True):
        if share < GOOD_SHARE:
            found.append(
                f"network: {each.machines.hosts} hosts reach {share:.0%} of linear, because merging takes "
                f"{each.traffic.seconds / (each.train_s + each.traffic.seconds):.0%} of the training; use fewer hosts, a faster "
                "network (--gbit), or a smaller vocab.max_size or train.vector_size"
            )
            break
    return found


def _memory_shortfall(plan: Plan) -> list[str]:
    there, limit = plan.there[-1], plan.memory_bytes
    needed = _most_memory(plan, there)
    if limit is None or needed <= limit:
        return []
    parameters = there.pairs * _pair_bytes(plan)
    a_word = parameters / plan.text.words + WORD_BYTES
    room = limit - (needed - a_word * plan.text.words)
    change = (
        "add memory (--memory)" if room > 0 else "lower train.lanes, whose streams take what is left, or add memory (--memory)"
    )
    if room > 0:
        words = int(0.95 * room / a_word)
        left = room - WORD_BYTES * plan.text.words
        size = int(plan.config.train.vector_size * left / parameters) // 8 * 8
        change = (
            f"set vocab.max_size={words:,}".replace(",", "_")
            + (f", or train.vector_size={size}" if size > 0 else "")
            + f", or {change}"
        )
    need = "two matrices" if there.pairs == 1 else f"two matrices {there.pairs} times (copies, also as merges see them, and base)"
    found = f"a worker needs up to {amount(needed)}, {amount(parameters)} of it {need}; {amount(limit)} are there"
    return [f"memory: {found}: {change}"]


def _disk_shortfall(plan: Plan) -> list[str]:
    there = plan.there[-1]
    needed = there.disk_bytes + there.memory.disk_bytes
    if needed <= plan.disk_bytes:
        return []
    largest = max(there.stages, key=lambda stage: stage.disk_bytes)
    return [
        f"disk: {amount(needed)} are needed, {amount(largest.disk_bytes)} of it by {largest.name}, and {amount(plan.disk_bytes)} "
        "are free where run.workdir is: choose a workdir with more (--disk), which every host must see, or less text"
    ]


def _hosts_shortfall(plan: Plan) -> list[str]:
    asked, train = max(plan.asked.hosts), plan.config.train
    most = plan.there[-1].machines.hosts
    if most >= asked:
        return []
    why = f"train.copies is {train.copies}" if train.copies else f"train.lanes is {train.lanes or 1}"
    if train.engine == "layers":
        why = "train.engine is layers, which trains on one host"
    return [f"hosts: of {asked} hosts {most} would train, because each needs a copy of the parameters with its lanes and {why}"]


def _pair_bytes(plan: Plan) -> int:
    from w2v_core.kernels import padded_size

    return 2 * plan.text.words * padded_size(plan.config.train.vector_size) * 4


def _most_memory(plan: Plan, each: Forecast) -> int:
    return plan.speeds.process_bytes + each.memory.largest_worker.resident_bytes


# ── in words and numbers ─────────────────────────────────────────────────────────────────────────────────────────────


def as_data(plan: Plan, taken: Taken | None) -> dict[str, Any]:
    """The plan as plain data: bytes, seconds, tokens."""

    def told(each: Forecast) -> dict[str, Any]:
        row = asdict(replace(each)) | {
            "seconds": each.seconds, "disk_bytes": each.disk_bytes, "checkpoint_bytes": each.memory.disk_bytes,
            "worker_bytes_at_most": _most_memory(plan, each), "driver_bytes": each.memory.driver_bytes,
            "bytes_a_second": each.bytes_a_second,
            "bytes_a_merge": each.traffic.sent_bytes // max(1, each.traffic.merges),
        }  # fmt: skip
        del row["memory"]
        return row | ({"money": cost(plan, each)} if plan.asked.price is not None else {})

    shares = speedups(plan.there)
    return {
        "corpus": asdict(plan.text) | {"sampled_bytes": plan.sample.stored_bytes},
        "speeds": asdict(plan.speeds),
        "here": told(plan.here),
        "hosts": [told(each) | {"share_of_linear": share} for each, share in zip(plan.there, shares, strict=True)],
        "memory_bytes": plan.memory_bytes,
        "disk_bytes": plan.disk_bytes,
        "does_not_fit": shortfalls(plan),
        "not_known": list(plan.unknown),
        "last_run": asdict(taken) if taken else None,
    }


def _count(number: int) -> str:
    for unit, scale in (("T", 10**12), ("G", 10**9), ("M", 10**6)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number:,}"


def _copies(each: Forecast) -> str:
    return "one copy" if each.copies == 1 else f"{each.copies} copies"


def _time(seconds: float) -> str:
    for unit, scale in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * scale:
            return f"{seconds / scale:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1e3 * seconds:.0f} ms"
