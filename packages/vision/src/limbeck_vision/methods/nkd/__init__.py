"""NKD: normalised distillation of logits. The loss is core's ``NormalizedKDLoss``; configs and README are here."""
