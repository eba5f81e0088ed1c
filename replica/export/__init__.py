"""Everything that a user owns, at one cursor, as a file of their own (I8): in formats that others can read."""

from replica.export.formats import FORMATS, Format
from replica.export.making import Export, export, export_from

__all__ = ["FORMATS", "Export", "Format", "export", "export_from"]
