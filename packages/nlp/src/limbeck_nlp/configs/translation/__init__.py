"""Configs of translation models."""
