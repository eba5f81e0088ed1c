"""Why something cannot be imported.

ImportingError
├── RecordError   one record, or one file of a folder, is left out; the import goes on
└── InputError    nothing at all can be read; the import ends
"""

from __future__ import annotations


class ImportingError(Exception):
    """Something cannot be imported."""


class RecordError(ImportingError):
    """One record cannot be imported.

    ``field`` is a name of the image's JSON, or empty where the whole record is at fault.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason


class InputError(ImportingError):
    """Nothing of the input can be imported. ``hint`` says what to do about it."""

    def __init__(self, reason: str, *, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint
