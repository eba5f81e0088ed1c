"""Whether a Postgres server runs in a data directory, told from the file that it keeps there, and its socket."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

_ANSWER_S = 1.0


@dataclass(frozen=True, slots=True)
class Postmaster:
    """A server, as its ``postmaster.pid`` has it; ``status`` is ``starting``, ``ready`` or ``stopping``.

    One that is ``apart`` answers, and its process is none that we can see: another container's, with the same data.
    """

    pid: int
    socket_dir: str
    status: str
    apart: bool = False

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
        if len(lines) < 2 or not lines[0].strip().isdigit():
            return None
        # The lines are the process id, data directory, start time, port, socket directory, address, memory
        # key, status.
        pid = int(lines[0])
        its_path = lines[1].strip()
        socket_dir = lines[4].strip() if len(lines) > 4 else ""
        if socket_dir == its_path:
            socket_dir = its_path = str(cluster)  # which may have been moved since, or go by another name there
        status = lines[7].strip() if len(lines) > 7 else "starting"
        if _is_postmaster(pid, cluster):
            return cls(pid, socket_dir, status)
        # A socket elsewhere is that of the path for which it was made: a copy of these files names it, too.
        apart = its_path == str(cluster) and _answers(socket_dir)
        return cls(pid, socket_dir, status, apart=True) if apart else None


def _is_postmaster(pid: int, cluster: Path) -> bool:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        command = process.cmdline()
        return Path(command[0]).name == "postgres" and (str(cluster) in command or _works_in(process, cluster))
    except psutil.AccessDenied:
        return True  # it lives, and is not ours to look into: never start a second one beside it
    except (psutil.NoSuchProcess, IndexError):
        return False


def _works_in(process: psutil.Process, cluster: Path) -> bool:
    """Tell whether a server has its data here although it was started with another path: the folder was moved."""
    try:
        return Path(process.cwd()) == cluster.resolve()
    except psutil.AccessDenied:
        return False


def _answers(socket_dir: str) -> bool:
    """Tell whether a server listens at the socket. A dead one's refuses, or is not there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_S)
        try:
            connection.connect(f"{socket_dir}/.s.PGSQL.5432")
        except (TimeoutError, BlockingIOError):  # the latter is how Linux says it
            return True  # there is a crowd at the door
        except OSError:
            return False
        return True
