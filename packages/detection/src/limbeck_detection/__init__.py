"""Knowledge distillation for object detection."""
