"""Configs on hands that the package draws; see the head of each."""
