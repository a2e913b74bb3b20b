"""Configs that tell outliers from texts of the kind a language model has learnt from."""
