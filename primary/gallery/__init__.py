"""The image gallery, the first application: its tables and its writes. The engine knows nothing of it."""
