"""Event streams: a client is told of each advance of its user's replica, as server-sent events."""
