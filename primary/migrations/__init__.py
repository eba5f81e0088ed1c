"""The chain of migrations: how an existing database becomes the declared one, step by step (Alembic)."""
