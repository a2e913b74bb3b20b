"""Configs of Trans-Encoder: the two directions of its cycle, and the bi-encoder it starts from."""
