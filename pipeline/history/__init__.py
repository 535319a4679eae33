"""The history of a workdir: snapshots of complete runs, the decisions about them, and the current champion."""
