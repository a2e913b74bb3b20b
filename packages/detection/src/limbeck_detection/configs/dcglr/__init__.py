"""Self-supervised clouds: DCGLR."""
