"""ESP-MedSAM: a light SAM that prompts itself, distilled by modality (Xu et al., arXiv:2407.14153)."""

from limbeck_medical.esp_medsam.call import SelfPromptingCall
from limbeck_medical.esp_medsam.data import MultiModalDataset, random_flip, square_pictures
from limbeck_medical.esp_medsam.decoder import MaskDecoder, PatchPrompter, PromptEncoder
from limbeck_medical.esp_medsam.losses import SelfPromptingLoss, batch_mask_loss, patch_target
from limbeck_medical.esp_medsam.model import MODALITIES, ESPMedSAM
from limbeck_medical.esp_medsam.sam_encoder import SAMImageEncoder, sam_vit_b, sam_vit_h, sam_vit_l
from limbeck_medical.esp_medsam.tiny_vit import TinyViTEncoder
from limbeck_medical.esp_medsam.weights import with_weights

__all__ = [
    "MODALITIES",
    "ESPMedSAM",
    "MaskDecoder",
    "MultiModalDataset",
    "PatchPrompter",
    "PromptEncoder",
    "SAMImageEncoder",
    "SelfPromptingCall",
    "SelfPromptingLoss",
    "TinyViTEncoder",
    "batch_mask_loss",
    "patch_target",
    "random_flip",
    "sam_vit_b",
    "sam_vit_h",
    "sam_vit_l",
    "square_pictures",
    "with_weights",
]
