"""Configs on figures that the package draws."""
