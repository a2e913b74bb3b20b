"""Models: those of the CIFAR benchmarks by name, and any of timm's or torchvision's."""

from limbeck_vision.models.library import timm_model, torchvision_model
from limbeck_vision.models.mobilenet import MobileNetV2, mobilenet_v2
from limbeck_vision.models.normalization import (
    CIFAR10_NORMALIZATION,
    CIFAR100_NORMALIZATION,
    IMAGENET_NORMALIZATION,
    ImageCall,
    Normalization,
    Normalize,
    NormalizedModel,
    normalize,
)
from limbeck_vision.models.repdistiller import load_repdistiller
from limbeck_vision.models.resnet import (
    ResNet,
    resnet8,
    resnet8_quarter,
    resnet8x4,
    resnet14,
    resnet18,
    resnet20,
    resnet32,
    resnet32x4,
    resnet34,
    resnet44,
    resnet50,
    resnet56,
    resnet110,
)
from limbeck_vision.models.shufflenet import ShuffleNetV1, ShuffleNetV2, shufflenet_v1, shufflenet_v2
from limbeck_vision.models.stages import StagedModel, StageInfo
from limbeck_vision.models.vgg import VGG, vgg8, vgg11, vgg13, vgg16, vgg19
from limbeck_vision.models.wrn import PreActResNet, WideResNet, preact_resnet18, wrn_16_1, wrn_16_2, wrn_40_1, wrn_40_2

__all__ = [
    "CIFAR10_NORMALIZATION",
    "CIFAR100_NORMALIZATION",
    "IMAGENET_NORMALIZATION",
    "VGG",
    "ImageCall",
    "MobileNetV2",
    "Normalization",
    "Normalize",
    "NormalizedModel",
    "PreActResNet",
    "ResNet",
    "ShuffleNetV1",
    "ShuffleNetV2",
    "StageInfo",
    "StagedModel",
    "WideResNet",
    "load_repdistiller",
    "mobilenet_v2",
    "normalize",
    "preact_resnet18",
    "resnet8",
    "resnet8_quarter",
    "resnet8x4",
    "resnet14",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet32x4",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet56",
    "resnet110",
    "shufflenet_v1",
    "shufflenet_v2",
    "timm_model",
    "torchvision_model",
    "vgg8",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "wrn_16_1",
    "wrn_16_2",
    "wrn_40_1",
    "wrn_40_2",
]
