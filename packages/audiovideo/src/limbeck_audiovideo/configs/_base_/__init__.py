"""Fragments that configs include by a relative ``read_base``: data sets and schedules."""
