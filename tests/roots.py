"""Root folders of hosts and containers that tests make up: what a process would read in /proc and /sys."""

from __future__ import annotations

from pathlib import Path


def write_files(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
