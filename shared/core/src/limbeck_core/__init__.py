"""Knowledge distillation for any PyTorch model."""
