"""``python -m tests.benchmarks``: measure, and print one table. A report: it exits 0 whatever it finds."""

from __future__ import annotations

import asyncio
import signal
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import click
import uvloop
from rich.console import Console
from rich.table import Table

from tests.benchmarks import (
    browse,
    capture_cost,
    export,
    favourite,
    first_build,
    importing,
    incremental_sync,
    large_commit,
    live,
    many_users,
    peer,
    reads,
    reads_while_syncing,
    zero,
)
from tests.benchmarks.bench import Bench, started
from tests.benchmarks.figures import Figure
from tests.benchmarks.load import generator_name
from tests.benchmarks.machine import busy, facts, new_page_us, steadiness

_BENCHMARKS: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2].replace("_", "-"): module
    for module in (
        reads,
        reads_while_syncing,
        browse,
        favourite,
        first_build,
        importing,
        incremental_sync,
        large_commit,
        capture_cost,
        export,
        many_users,
        live,
        peer,
        zero,
    )
}
_WIDTH = 160  # of a table that goes to a file


@click.command()
@click.option(
    "--only", "names", multiple=True, type=click.Choice(list(_BENCHMARKS)), help="One of them; may be repeated."
)
@click.option("--quick", is_flag=True, help="Fewer and shorter rounds.")
@click.option(
    "--peer-dir",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="A folder with the workerd peer, its npm packages installed.",
)
@click.option(
    "--zero-dir",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="A folder with the peer Zero, its npm packages installed.",
)
def main(names: Sequence[str], quick: bool, peer_dir: Path | None, zero_dir: Path | None) -> None:
    """Measure tidepool, each number beside something else that is measured in the same run.

    Wants the machine for itself. Whatever it finds, the exit code is 0.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_measure_all(names or list(_BENCHMARKS), quick, peer_dir, zero_dir))
        except asyncio.CancelledError:
            click.echo("stopped", err=True)


async def _measure_all(names: Sequence[str], quick: bool, peer_dir: Path | None, zero_dir: Path | None) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # so that servers are stopped
    console = Console(width=None if Console().is_terminal else _WIDTH, highlight=False)
    busy_before, steady, page_us = busy(), steadiness(), new_page_us()
    table = Table(title="tidepool, measured", title_justify="left", show_edge=False, pad_edge=False)
    for heading in ("what", "measured", "bar", "", "from"):
        table.add_column(heading, justify="right" if heading in ("measured", "bar") else "left")
    try:
        async with started(quick=quick, peer_dir=peer_dir, zero_dir=zero_dir) as bench:
            for name in names:
                began = time.monotonic()
                click.echo(f"{name} … ", err=True, nl=False)
                table.add_section()
                table.add_row(f"[bold]{_BENCHMARKS[name].TITLE}")
                for figure in await _measure(_BENCHMARKS[name], bench):
                    table.add_row(*_row(figure))
                click.echo(f"{time.monotonic() - began:.0f} s", err=True)
    finally:  # what was measured is told though the run was cut short
        console.print()
        console.print(table)
        console.print()
        for name, fact in facts(generator_name(), busy_before, steady, page_us):
            console.print(f"{name:>10}  {fact}")


async def _measure(module: ModuleType, bench: Bench) -> list[Figure]:
    """Measure one; a failure is a line of the report and keeps no other from being measured."""
    try:
        figures: list[Figure] = await module.measure(bench)
    except Exception as error:  # noqa: BLE001 - whatever it was, it is told
        traceback.print_exc()
        return [Figure("failed", type(error).__name__, detail=str(error)[:200])]
    return figures


def _row(figure: Figure) -> tuple[str, str, str, str, str]:
    verdict = {None: "", True: "[green]met[/]", False: "[red]short[/]"}[figure.met]
    return figure.what, figure.measured, figure.bar, verdict, figure.detail


if __name__ == "__main__":
    main()
