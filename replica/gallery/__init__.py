"""What is read of the image gallery, from the user's own replica.

The plain list and one image: `images`; all there is to tell of one: `detail`; `albums`, `facets`, `profiles`.
Any other list: `browse`. Which it is: `listing`; in which parts: `stretches`; along which index: `walking`, by the SQL
of `keys` and `conditions`; what its page says: `page_text`, and `members` wherever an image is told.
What is searched for: `search` reads it, `finding` and `matches` find it. Pages: `page_cursor`, `page_size`.
"""
