"""Images from elsewhere: JSON Lines, CSV and PNG files are read here and made ready to be saved."""
