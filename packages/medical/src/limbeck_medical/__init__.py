"""Knowledge distillation for medical segmentation."""
