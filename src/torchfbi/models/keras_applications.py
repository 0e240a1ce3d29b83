"""Keras' own ImageNet classifiers: what ``keras.applications`` calls them, and their inputs."""

from __future__ import annotations

from typing import Any, NamedTuple

from torchfbi.models.preprocess import Preprocess

STYLES: dict[str, dict[str, Any]] = {
    # The mean colour of ImageNet is subtracted from blue, green and red of 0 to 255.
    "caffe": {
        "channels": "BGR",
        "mean": tuple(value / 255 for value in (103.939, 116.779, 123.68)),
        "std": (1 / 255,) * 3,
    },
    # -1 to 1.
    "tf": {"mean": (0.5,) * 3, "std": (0.5,) * 3},
    "torch": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    # 0 to 255: the network's first layers rescale.
    "pixels": {"mean": (0.0,) * 3, "std": (1 / 255,) * 3},
}
"""The modes of ``keras.applications.imagenet_utils.preprocess_input``, for ``Preprocess``."""


class Application(NamedTuple):
    """One of Keras' classifiers.

    Args:
        kind: the function in ``keras.applications``.
        style: one of ``STYLES``.
        side: of the square input it was trained on.
        file: its ImageNet weights, in the folder ``~/.keras/models``.
    """

    kind: str
    style: str
    side: int
    file: str

    def preprocess(self, size: tuple[int, int] | None = None) -> Preprocess:
        """The central 87.5 % of the photo (224 of 256), at ``size`` or the trained one."""
        height, width = size or (self.side, self.side)
        crop = height if height == width else (height, width)
        return Preprocess(round(max(height, width) / 0.875), crop, **STYLES[self.style])


_TF = "_weights_tf_dim_ordering_tf_kernels.h5"
_FLOAT = "_224_1.0_float.h5"

APPLICATIONS = {
    application.kind.lower(): application
    for application in (
        Application("VGG16", "caffe", 224, f"vgg16{_TF}"),
        Application("VGG19", "caffe", 224, f"vgg19{_TF}"),
        Application("ResNet50", "caffe", 224, f"resnet50{_TF}"),
        Application("ResNet101", "caffe", 224, f"resnet101{_TF}"),
        Application("ResNet152", "caffe", 224, f"resnet152{_TF}"),
        Application("ResNet50V2", "tf", 224, f"resnet50v2{_TF}"),
        Application("ResNet101V2", "tf", 224, f"resnet101v2{_TF}"),
        Application("ResNet152V2", "tf", 224, f"resnet152v2{_TF}"),
        Application("DenseNet121", "torch", 224, f"densenet121{_TF}"),
        Application("DenseNet169", "torch", 224, f"densenet169{_TF}"),
        Application("DenseNet201", "torch", 224, f"densenet201{_TF}"),
        Application("InceptionV3", "tf", 299, f"inception_v3{_TF}"),
        Application("InceptionResNetV2", "tf", 299, f"inception_resnet_v2{_TF}"),
        Application("Xception", "tf", 299, f"xception{_TF}"),
        Application("MobileNet", "tf", 224, "mobilenet_1_0_224_tf.h5"),
        Application("MobileNetV2", "tf", 224, f"mobilenet_v2{_TF[:-3]}_1.0_224.h5"),
        Application(
            "MobileNetV3Small", "pixels", 224, "weights_mobilenet_v3_small_224_1.0_float.h5"
        ),
        Application(
            "MobileNetV3Large", "pixels", 224, "weights_mobilenet_v3_large_224_1.0_float.h5"
        ),
        Application("NASNetLarge", "tf", 331, "nasnet_large.h5"),
        Application("EfficientNetB0", "pixels", 224, "efficientnetb0.h5"),
        Application("EfficientNetB1", "pixels", 240, "efficientnetb1.h5"),
        Application("EfficientNetB2", "pixels", 260, "efficientnetb2.h5"),
        Application("EfficientNetB3", "pixels", 300, "efficientnetb3.h5"),
        Application("EfficientNetB4", "pixels", 380, "efficientnetb4.h5"),
        Application("EfficientNetB5", "pixels", 456, "efficientnetb5.h5"),
        Application("EfficientNetB6", "pixels", 528, "efficientnetb6.h5"),
        Application("EfficientNetB7", "pixels", 600, "efficientnetb7.h5"),
        Application("EfficientNetV2B0", "pixels", 224, "efficientnetv2-b0.h5"),
        Application("EfficientNetV2B1", "pixels", 240, "efficientnetv2-b1.h5"),
        Application("EfficientNetV2B2", "pixels", 260, "efficientnetv2-b2.h5"),
        Application("EfficientNetV2B3", "pixels", 300, "efficientnetv2-b3.h5"),
        Application("EfficientNetV2S", "pixels", 384, "efficientnetv2-s.h5"),
        Application("EfficientNetV2M", "pixels", 480, "efficientnetv2-m.h5"),
        Application("EfficientNetV2L", "pixels", 480, "efficientnetv2-l.h5"),
        Application("ConvNeXtTiny", "pixels", 224, "convnext_tiny.h5"),
        Application("ConvNeXtSmall", "pixels", 224, "convnext_small.h5"),
        Application("ConvNeXtBase", "pixels", 224, "convnext_base.h5"),
        Application("ConvNeXtLarge", "pixels", 224, "convnext_large.h5"),
        Application("ConvNeXtXLarge", "pixels", 224, "convnext_xlarge.h5"),
    )
}
"""By the name after ``keras:``. NASNetMobile is not there: Keras itself refuses it on PyTorch."""
