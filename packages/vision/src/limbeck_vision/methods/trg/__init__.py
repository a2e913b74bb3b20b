"""Relations between patch tokens, inside an image and across a batch (TRG)."""

from limbeck_vision.methods.trg.calls import TokenCall, check_image_size
from limbeck_vision.methods.trg.losses import (
    InnerContextLoss,
    TokenContrastLoss,
    TokenGraphLoss,
    inner_context_loss,
    token_contrast_loss,
    token_graph_loss,
)
from limbeck_vision.methods.trg.tokens import as_tokens, sample_tokens, token_pair

__all__ = [
    "InnerContextLoss",
    "TokenCall",
    "TokenContrastLoss",
    "TokenGraphLoss",
    "as_tokens",
    "check_image_size",
    "inner_context_loss",
    "sample_tokens",
    "token_contrast_loss",
    "token_graph_loss",
    "token_pair",
]
