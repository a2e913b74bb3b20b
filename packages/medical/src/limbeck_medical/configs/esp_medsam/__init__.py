"""ESP-MedSAM: its stages, each a run, and its architecture without distillation."""
