"""Knowledge distillation for audio, video and inertial sensors."""
