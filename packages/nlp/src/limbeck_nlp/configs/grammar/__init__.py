"""Configs on text that the grammar of this package writes."""
