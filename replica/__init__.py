"""One SQLite file per user: filled from the feed, read without asking the primary."""
