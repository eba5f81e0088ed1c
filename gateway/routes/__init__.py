"""Routes that are not about pictures: syncing, who one is, and what keeps the server running."""
