"""Promises of how long something takes that is all work, on a machine that others use as well."""

from __future__ import annotations

import os


def alone(seconds: float) -> float:
    """Give how long it may take here and now what takes ``seconds`` on a machine that does nothing else."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
