"""What the server shows of itself: request ids, logs and metrics."""
