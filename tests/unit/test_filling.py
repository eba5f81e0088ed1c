"""Filling a table: every row arrives as it is, whatever is NULL in it and however many there are."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from replica.filling import STATEMENT_ROWS, fill

COLUMNS = ["id", "first", "second", "third"]


def filled(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE row (id, first TEXT, second TEXT, third TEXT)")
        fill(connection, "row", COLUMNS, rows)
        return connection.execute("SELECT * FROM row ORDER BY rowid").fetchall()


@pytest.mark.parametrize("count", [0, 1, STATEMENT_ROWS - 1, STATEMENT_ROWS, 3 * STATEMENT_ROWS + 7])
def test_as_many_rows_arrive_as_are_given_in_their_order(count: int) -> None:
    rows = [(number, "a", "b", "c") for number in range(count)]
    assert filled(rows) == rows


def test_a_column_that_is_null_in_every_row_is_null_and_moves_no_other() -> None:
    rows = [(number, None, None, "c") for number in range(STATEMENT_ROWS + 3)]
    assert filled(rows) == rows


def test_a_column_that_is_null_in_all_rows_but_one_keeps_that_one() -> None:
    rows = [
        (number, None, "only" if number == STATEMENT_ROWS + 1 else None, "") for number in range(STATEMENT_ROWS + 3)
    ]
    assert filled(rows) == rows


def test_rows_of_nothing_but_null_are_rows() -> None:
    rows = [(None, None, None, None)] * (STATEMENT_ROWS + 1)
    assert filled(rows) == rows
