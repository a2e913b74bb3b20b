"""ESP-MedSAM: a SAM that prompts itself and tells modalities apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate

from limbeck_core.build import build
from limbeck_medical.esp_medsam.decoder import MaskDecoder, PatchPrompter, PromptEncoder
from limbeck_medical.esp_medsam.layers import as_modality
from limbeck_medical.esp_medsam.tiny_vit import TinyViTEncoder

MODALITIES = ("dermoscopy", "x-ray", "ultrasound", "fundus", "microscopy", "colonoscopy")


class ESPMedSAM(nn.Module):
    """Image encoder, patch prompts and a decoder with a query for each modality.

    With the defaults it has the 12,789,587 parameters of the released model. With SAM's encoder instead of TinyViT it
    is the medical teacher. Its weights have SAM's names where SAM has them, see
    :func:`~limbeck_medical.esp_medsam.weights.with_weights`.

    Args:
        image_encoder: :class:`~limbeck_medical.esp_medsam.tiny_vit.TinyViTEncoder`,
            :class:`~limbeck_medical.esp_medsam.sam_encoder.SAMImageEncoder`, or any module with ``image_size`` and
            ``embed_dim`` that takes images and modality and returns embeddings at a sixteenth of the size; or a config
            of one. Default: TinyViT with one controller.
        modalities: Number of modalities. Paper: 6, see :data:`MODALITIES`.
        hypernetworks: 1 (released code), or ``modalities`` (the paper's figure).
        depth: Layers of the decoder's transformer.
        heads: Its attention heads.
        hidden: Width of its MLPs.

    Raises:
        ValueError: if ``hypernetworks`` is neither 1 nor ``modalities``.

    Reference:
        Xu et al., ESP-MedSAM: Efficient Self-Prompting SAM for Universal Domain-Generalized Medical Image Segmentation,
        arXiv:2407.14153; in its journal version De-LightSAM, doi:10.1109/tcsvt.2025.3621309.
    """

    def __init__(
        self,
        image_encoder: nn.Module | Mapping[str, Any] | None = None,
        *,
        modalities: int = 6,
        hypernetworks: int = 1,
        depth: int = 2,
        heads: int = 8,
        hidden: int = 2048,
    ) -> None:
        super().__init__()
        if hypernetworks not in (1, modalities):
            raise ValueError(f"hypernetworks must be 1 or one for each of {modalities} modalities, got {hypernetworks}")
        encoder: Any = TinyViTEncoder(controllers=1) if image_encoder is None else build(image_encoder)
        self.image_encoder = encoder
        self.modalities = modalities
        self.image_size = int(encoder.image_size)
        dim = int(encoder.embed_dim)
        self.prompt_encoder = PromptEncoder(dim, self.image_size // 16)
        self.patch_prompter = PatchPrompter(dim)
        # the released model has one query more than it uses, and the queries see each other
        self.mask_query = nn.Embedding(modalities + 1, dim)
        self.mask_decoder = MaskDecoder(dim, depth=depth, heads=heads, hidden=hidden, hypernetworks=hypernetworks)

    def forward(self, images: Tensor, modality: int | Tensor) -> dict[str, Tensor]:
        """Segment a batch, of one modality or mixed.

        Args:
            images: Shape ``(N, 3, image_size, image_size)``.
            modality: One number for the batch, or one for each sample, ``(N,)``.

        Returns:
            ``masks``: logits ``(N, 1, image_size, image_size)``; ``patches``: logits of patches of 32 pixels with
            foreground, ``(N, 1, image_size / 32, image_size / 32)``; ``embeddings``: ``(N, embed_dim, image_size / 16,
            image_size / 16)``.

        Raises:
            ShapeError: if the images have another shape, or there are not as many modalities as samples.
            TargetError: if a modality is out of range.
        """
        index = as_modality(modality, len(images), self.modalities, images.device)
        embeddings = self.image_encoder(images, index)
        patches, prompt = self.patch_prompter(embeddings)
        coarse = self.mask_decoder(embeddings + prompt, self.prompt_encoder(), self.mask_query.weight, index)
        masks = interpolate(coarse, size=images.shape[2:], mode="bilinear", align_corners=False)
        return {"masks": masks, "patches": patches, "embeddings": embeddings}
