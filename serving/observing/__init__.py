"""What the gateway says of itself: metrics, spans and the log."""
