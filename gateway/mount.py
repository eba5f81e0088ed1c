"""Routes below one path."""

from __future__ import annotations

from typing import Any, Self

from litestar import Router


class Mount(Router):
    """A router that is mounted once, and is not copied for it.

    Litestar copies a router, with all that its routes are described with, each time that it is mounted, lest two places
    share it. That took a third of putting the application together.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Give the router itself."""
        return self
