"""Exports over HTTP: made whole before anything is sent, so that an answer is a whole file or a problem."""
