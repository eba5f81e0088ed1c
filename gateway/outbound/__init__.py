"""Asking servers that a user named: which may be asked at all, and how, so that none else is."""
