"""Named points of a sync, at which a test can end the process or let the disk fail.

A point is passed between two steps that must hold whichever of them was the last:

    build.created   build.rows   build.indexed   build.finished   build.durable   build.renamed   build.sealed
    apply.begun     apply.rows   apply.stated    apply.committed  apply.sealed    finish.done
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping

Passing = Callable[[str], None]
"""Called with the name of each point as it is passed; what it raises is what the step before it raised."""

CRASH_VARIABLE = "TIDEPOOL_CRASH_AT"


def undisturbed(point: str) -> None:
    """Pass."""


def from_environment(environment: Mapping[str, str]) -> Passing:
    """Give what kills this very process (SIGKILL) at the point that TIDEPOOL_CRASH_AT names, if it names one."""
    deadly = environment.get(CRASH_VARIABLE)
    if not deadly:
        return undisturbed

    def passing(point: str) -> None:
        if point == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    return passing
