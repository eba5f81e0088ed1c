"""The image gallery over HTTP."""
