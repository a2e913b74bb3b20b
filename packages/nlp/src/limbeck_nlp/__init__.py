"""Knowledge distillation for language models and text tasks."""
