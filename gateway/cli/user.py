"""The user that a command is for, as it was typed."""

from __future__ import annotations

import click

from replica.location import USER_ID_MAX_CHARS


class _User(click.ParamType):  # type: ignore[type-arg]  # which is generic only in later releases
    name = "user"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not 1 <= len(value) <= USER_ID_MAX_CHARS or "\0" in value:
            self.fail(f"a user id has 1 to {USER_ID_MAX_CHARS} characters.", param, ctx)
        try:
            value.encode()
        except UnicodeEncodeError:  # bytes that are not of the terminal's encoding
            self.fail("a user id is text; this one is not valid Unicode.", param, ctx)
        return value


USER = _User()
"""The type of an argument or option that names a user."""
