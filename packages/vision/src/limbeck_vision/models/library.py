"""Any model of timm or torchvision by name, ready to distil: nothing downloaded, and its normalisation attached."""

from __future__ import annotations

from typing import Any

from torch import nn

from limbeck_core.errors import ConfigError, closest
from limbeck_vision.models.normalization import Normalization


def timm_model(name: str, num_classes: int, *, pretrained: bool = False, **options: Any) -> nn.Module:
    """Build a model of timm by name.

    Args:
        name: Such as ``"resnet18"`` or, with the weights whose normalisation is wanted, ``"resnet18.a1_in1k"``.
        num_classes: Number of classes; 0 leaves the classifier out, as in timm.
        pretrained: Must stay ``False``: nothing is downloaded here.
        options: Passed to ``timm.create_model`` (``global_pool``, ``img_size``, ``in_chans``, ``drop_path_rate``, ...).

    Returns:
        The model with random weights and the attribute ``normalization``. None of its activations works in place, so
        that any module's output may be tapped. With another number of channels
        than the weights were trained on, each has the mean of theirs.

    Raises:
        ConfigError: if timm has no such model (with the closest names), or ``pretrained`` is asked for.
    """
    import timm  # noqa: PLC0415  takes seconds, and the CIFAR models do without
    from timm.data.config import resolve_model_data_config  # noqa: PLC0415

    _refuse_download(name, pretrained)
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise ConfigError(f"timm {timm.__version__} has no model {name!r}: {closest(architecture, timm.list_models())}")
    if tag and name not in (tagged := timm.models.list_pretrained(f"{architecture}.*")):
        raise ConfigError(
            f"timm {timm.__version__} knows no weights {tag!r} of {architecture}: {closest(name, tagged)}"
        )
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, **options)
    data = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    mean, std, (channels, height, width) = data["mean"], data["std"], data["input_size"]
    if options.get("in_chans", channels) != channels:
        channels = options["in_chans"]
        mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    if options.get("img_size") is not None:
        size = options["img_size"]
        height, width = (size, size) if isinstance(size, int) else size
    return _prepare(model, num_classes, Normalization(tuple(mean), tuple(std), (channels, height, width)))


def torchvision_model(name: str, num_classes: int, *, pretrained: bool = False, **options: Any) -> nn.Module:
    """Build a classification model of torchvision by name.

    Args:
        name: Such as ``"resnet18"`` or ``"vit_b_16"``.
        num_classes: Number of classes.
        pretrained: Must stay ``False``: nothing is downloaded here.
        options: Passed to the model's constructor.

    Returns:
        The model with random weights and the attribute ``normalization``, which is that of its default weights. None of
        its activations works in place, so that any module's output may be tapped.

    Raises:
        ConfigError: if torchvision has no such model (with the closest names), or ``pretrained`` is asked for.
    """
    import torchvision  # noqa: PLC0415  takes a second, and the CIFAR models do without
    from torchvision import models  # noqa: PLC0415

    _refuse_download(name, pretrained)
    known = models.list_models(module=models)
    if name not in known:
        raise ConfigError(f"torchvision {torchvision.__version__} has no model {name!r}: {closest(name, known)}")
    model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **options)
    transforms = models.get_model_weights(name).DEFAULT.transforms()
    size = transforms.crop_size[0]
    return _prepare(model, num_classes, Normalization(tuple(transforms.mean), tuple(transforms.std), (3, size, size)))


def _refuse_download(name: str, pretrained: bool) -> None:
    if pretrained:
        raise ConfigError(
            f"pretrained=True would download weights of {name!r}, and nothing is downloaded here: fetch the file once, "
            "leave pretrained out, and load it with limbeck_core.pretrained(model, checkpoint=FILE) for a teacher or "
            "limbeck_core.weights.load_weights(model, FILE) for a student"
        )


def _prepare(model: nn.Module, num_classes: int, normalization: Normalization) -> nn.Module:
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    model.num_classes = num_classes  # type: ignore[assignment]
    model.normalization = normalization  # type: ignore[assignment]
    return model
