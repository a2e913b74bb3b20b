"""Knowledge distillation for pose estimation."""
