"""Places where a test can make this process die or a call fail, exactly there and exactly once.

    W2V_FAILPOINT="commit:vocab=kill,/tmp/token"       the process that gets there first is killed by SIGKILL
    W2V_FAILPOINT="step:1.7=stop,/tmp/token"           … is frozen by SIGSTOP
    W2V_FAILPOINT="write:part-00001.parquet=ENOSPC,…"  … gets this OSError
    W2V_FAILPOINT="meet:1=note,/tmp/token"             … only leaves its process id in the token file

The token file makes it fire once across all processes and restarts: the process that creates it fires, and writes its process id
into it. Sleeping and hoping to hit the right moment would only test luck. Unset (always, outside tests), a failpoint costs one
comparison.

    stage:NAME             the driver, before a stage is built        commit:KIND, committed:KIND  around a manifest
    task:LABEL.INDEX       a worker, before a task of a map           round:ROUND.ATTEMPT          the driver, before a round
    write:FILE             written, but not yet under its name        written:FILE                 … and now renamed
    snapshot:written       a snapshot is complete, but not yet renamed
    decide:KIND, decided:KIND   around the entry that names the champion        latest:made   … and before `latest` points to it
    alias:ALIAS            before the alias of a registered model follows a decision        hook:begins   before refresh.on_finish
    place:FILE             before a file of `w2v export` is moved to its place
    part:begins            a worker, before its part of a round
    meet:PARTICIPANT       a worker created or joined its group's memory   step:EPOCH.STEP.LANE    before a lane's step
    ahead:EPOCH.PART       a worker, before it draws a part of the next epoch's stream
    merge:N.PARTICIPANT, merged:N.PARTICIPANT   before and after folding in the group's N-th merge
"""

from __future__ import annotations

import errno
import os
import signal

_ARMED = os.environ.get("W2V_FAILPOINT", "")


def are_armed() -> bool:
    return bool(_ARMED)


def reach(kind: str, name: object) -> None:
    """Fires if the failpoint `kind:name` is armed and has not fired yet."""
    if _ARMED and _ARMED.startswith(f"{kind}:{name}="):
        _fire(_ARMED.split("=", 1)[1])


def _fire(order: str) -> None:
    action, token = order.split(",", 1)
    try:
        descriptor = os.open(token, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return
    os.write(descriptor, str(os.getpid()).encode())
    os.close(descriptor)
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action != "note":
        code = getattr(errno, action)
        raise OSError(code, os.strerror(code))
