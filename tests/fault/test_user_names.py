"""I5: any text of 1 to 255 characters is a user of its own, and never part of a path or of SQL."""

from __future__ import annotations

import asyncio

import pytest

from replica.errors import InvalidUser
from tests.support.bay import Bay
from tests.support.replicas import change, count_images, grow, held, truth

STRANGE = [
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "..",
    ".",
    "%00",
    "\U0001f30a" * 255,
    "' OR 1=1 --",
    '"; DROP TABLE image; --',
    " ",
    "\t\n",
    "\u00e9",
    "e\u0301",
    "Ann",
    "ann",
    "CON",
    "a" * 255,
    "\u202egnp.exe",
    "-rf *",
    "{user}",
    "\x7f",
]


async def test_any_text_is_a_user_of_its_own(bay: Bay) -> None:
    for place, user in enumerate(STRANGE):
        await grow(bay.primary, user, place % 4 + 1, tag=f"of {place}")
    for user in STRANGE:
        await bay.store.sync(user)
        await change(bay.primary, user, rows=1, tag="other")
        await bay.store.sync(user)
    await bay.assert_same(*STRANGE)
    files = [path for path in bay.directory.root.parent.rglob("*") if path.is_file()]
    assert {path.parent.parent.parent for path in files if path.suffix == ".db"} == {bay.directory.replicas}
    assert len([path for path in files if path.suffix == ".db"]) == len(STRANGE)
    assert all(len(path.name) < 80 and path.name.isascii() for path in files)


@pytest.mark.parametrize("user", ["", "a" * 256, "a\0b", "\0", "\ud800", "a\udfffb", "\U0001f30a" * 256])
async def test_what_is_no_text_of_1_to_255_characters_is_no_user(bay: Bay, user: str) -> None:
    for asked in (
        bay.store.read(user, count_images),
        bay.store.sync(user),
        bay.store.cursor(user),
        bay.store.rebuild(user),
    ):
        with pytest.raises(InvalidUser) as raised:
            await asked
        assert user == "" or user not in str(raised.value)
    assert not [*bay.directory.replicas.iterdir()]


async def test_nobody_reads_anothers_rows(bay: Bay) -> None:
    for user in ("ann", "bob"):
        await grow(bay.primary, user, 4, tag=user)
    found = await asyncio.gather(*(held(bay.store, user) for user in ["ann", "bob"] * 10))
    expected = [await truth(bay.primary, bay.catalog, user) for user in ("ann", "bob")]
    assert found == expected * 10
