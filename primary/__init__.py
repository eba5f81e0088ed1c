"""Postgres, where every write lands: what is synced, how changes are captured, and how they are read back."""
