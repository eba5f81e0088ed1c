"""Routes that are not about pictures: syncing, event streams, exports, and what those look at who run the server."""
