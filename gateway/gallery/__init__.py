"""The image gallery over HTTP.

Routes: `reads`, `writes` and `bulk_writes` of images, `activity_writes`, `album_reads`, `album_writes`, `place_writes`,
which `routes` puts together; `me`; `mirror`, which also delivers.
What a request asks for: `asked`, `list_parameters`. What is refused: `problems`.
How all that is described to clients: `documents`, `album_documents`, `browse_documents`, `browse_operations`.
"""
