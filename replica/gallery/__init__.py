"""What is read of the image gallery, from the user's own replica."""
