"""Names in a language without labels: ProKD's prototypes and self-training."""
