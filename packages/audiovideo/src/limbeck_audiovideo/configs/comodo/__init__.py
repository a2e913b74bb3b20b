"""COMODO on pairs that the package renders, and on UTD-MHAD."""
