"""Places where a test can make this process die or a call fail, exactly there and exactly once.

    W2V_FAILPOINT="commit:vocab=kill,/tmp/token"       the process that gets there first is killed by SIGKILL
    W2V_FAILPOINT="step:1.7=stop,/tmp/token"           … is frozen by SIGSTOP
    W2V_FAILPOINT="write:part-00001.parquet=ENOSPC,…"  … gets this OSError

The token file makes it fire once over all processes and restarts: whoever creates it fires. Sleeping and hoping to hit
the right moment would test the luck of the scheduler. Unset (always, outside tests) a failpoint costs one comparison.
"""

from __future__ import annotations

import errno
import os
import signal

_ARMED = os.environ.get("W2V_FAILPOINT", "")


def reach(kind: str, name: object) -> None:
    """Fires if the failpoint `kind:name` is armed and has not fired yet."""
    if _ARMED and _ARMED.startswith(f"{kind}:{name}="):
        _fire(_ARMED.split("=", 1)[1])


def _fire(order: str) -> None:
    action, token = order.split(",", 1)
    try:
        os.close(os.open(token, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        code = getattr(errno, action)
        raise OSError(code, os.strerror(code))
