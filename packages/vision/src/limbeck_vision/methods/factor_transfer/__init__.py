"""FT's first stage: the paraphraser, trained alone on the teacher's maps, and read back for the second stage."""

from limbeck_vision.methods.factor_transfer.paraphraser import TeacherAutoencoder, pretrained_paraphraser

__all__ = ["TeacherAutoencoder", "pretrained_paraphraser"]
