"""Routes below one path."""

from __future__ import annotations

from typing import Any, Self

from litestar import Router
from litestar.types.internal_types import RouteHandlerMapItem


class Mount(Router):
    """A router that is mounted once, is not copied for it, and tells all methods of each path.

    Litestar copies a router, with all that its routes are described with, each time that it is mounted, lest two places
    share it. That took a third of putting the application together.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Give the router itself."""
        return self

    @property
    def route_handler_method_map(self) -> dict[str, RouteHandlerMapItem]:
        """Give what handles each method of each path, but for OPTIONS.

        What answers that is made by Litestar with a path's first handler, and tells of the methods that there are then.
        Left out here, it is made anew when another handler joins.
        """
        handlers = super().route_handler_method_map
        return {
            path: {method: handler for method, handler in of_path.items() if method != "OPTIONS"}
            for path, of_path in handlers.items()
        }
