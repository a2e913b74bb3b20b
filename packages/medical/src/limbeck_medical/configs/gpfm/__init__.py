"""GPFM at the paper's size, and at the size of a trial on rendered tiles."""
