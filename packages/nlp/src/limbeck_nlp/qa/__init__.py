"""Cross-lingual extractive question answering by self-distillation in generations (G-XLT)."""
