"""Configs of this package, found by `limbeck list`."""
