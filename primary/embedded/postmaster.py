"""Whether a Postgres server runs in a data directory, told from the file that it keeps there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Postmaster:
    """A server, as its ``postmaster.pid`` has it; ``status`` is ``starting``, ``ready`` or ``stopping``."""

    pid: int
    socket_dir: str
    status: str

    @classmethod
    def of(cls, cluster: Path) -> Postmaster | None:
        """Find the server that runs in ``cluster``; None if none does.

        A file left by a server that is gone does not count, even if another program has its process id by
        now, as happens where a container's processes are numbered from 1 at every start.
        """
        try:
            lines = (cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        if not lines or not lines[0].strip().isdigit():
            return None
        pid = int(lines[0])
        if not _is_postmaster(pid, cluster):
            return None
        # The lines are the process id, data directory, start time, port, socket directory, address, memory
        # key, status.
        socket_dir = lines[4].strip() if len(lines) > 4 else ""
        return cls(pid, socket_dir, lines[7].strip() if len(lines) > 7 else "starting")


def _is_postmaster(pid: int, cluster: Path) -> bool:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        command = process.cmdline()
        return Path(command[0]).name == "postgres" and str(cluster) in command
    except psutil.AccessDenied:
        return True  # it lives, and is not ours to look into: never start a second one beside it
    except (psutil.NoSuchProcess, IndexError):
        return False
