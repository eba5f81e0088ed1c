"""The image gallery, the first application: its tables and its writes. The engine knows nothing of it.

Declared: `tables`, made of `columns`, within `limits`; those of the mirror in `upstream`.
Kept by triggers: `touch` (edited when, how often), `made_at`, `totals`, `history`, the outbox (`upstream`).
What may be written: `records`, `album_records`; why not: `errors`.
Written: `images` (by the SQL of `statements`), `bulk`, `activity`, `events`, `albums`, `places` (at `positions`),
`upstreams`. Given out: `image`. Told to upstream servers: `outbox`.
"""
