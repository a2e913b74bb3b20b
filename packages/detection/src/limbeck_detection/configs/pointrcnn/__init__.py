"""Configs; see the head of each."""
