"""The table of built-in names: what a config's `type:` may say, and where the class lives.

Explicit, so that nothing depends on what was imported before; light, because `import layernet` reads it.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Kind: TypeAlias = Literal[
    "layer", "loss", "metric", "optimizer", "schedule", "dataset", "transform", "init", "callback", "average"
]


def _of(module: str, *names: str) -> dict[str, str]:
    return {name: f"layernet.{module}:{name}" for name in names}


BUILT_IN: dict[Kind, dict[str, str]] = {
    "layer": {
        **_of("layers.linear", "Linear", "Scale", "Bias"),
        **_of("layers.embedding", "Embedding"),
        **_of("layers.conv", "Conv2d", "Conv1d"),
        **_of("layers.conv_transpose", "ConvTranspose2d"),
        **_of("layers.local", "Local2d"),
        **_of("layers.separable", "SeparableConv2d"),
        **_of("layers.weight_norm", "WeightNorm"),
        **_of("layers.pool", "MaxPool2d", "AvgPool2d", "GlobalAvgPool2d"),
        **_of("layers.norm", "BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm2d", "RMSNorm"),
        **_of("layers.local_norm", "LocalResponseNorm", "LocalContrastNorm"),
        **_of("layers.pool", "MaxAbsPool2d"),
        **_of("layers.pool1d", "MaxPool1d", "AvgPool1d"),
        **_of("layers.pool_to_size", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "GlobalMaxPool2d", "Maxout"),
        **_of("layers.activation", "ReLU", "LeakyReLU", "PReLU", "GELU", "SiLU", "Sigmoid", "Tanh", "Softmax"),
        **_of("layers.rectifier", "Hardtanh", "ReLU6", "ELU", "SELU", "Hardswish", "Mish", "Softplus"),
        **_of("layers.squash", "ScaledTanh", "Tanhshrink", "Softsign", "LogSigmoid", "LogSoftmax", "GLU"),
        **_of("layers.arithmetic", "Affine", "Abs", "Square", "Sqrt", "Log", "Exp", "Power"),
        **_of("layers.dropout", "Dropout", "Dropout2d", "DropPath", "GaussianNoise"),
        **_of("layers.shape", "Flatten", "Reshape"),
        **_of("layers.rearrange", "Permute", "Squeeze", "Unsqueeze", "Slice", "PixelShuffle", "PixelUnshuffle"),
        **_of("layers.border", "ZeroPad2d", "ReflectionPad2d", "ReplicationPad2d", "Crop", "Nailbed"),
        **_of("layers.resample", "Upsample", "Resize", "GaussianBlur", "RGBToYUV", "RGBToLab"),
        **_of("core.sequential", "Sequential"),
        **_of("layers.composite", "Residual", "Concat", "Add", "Recompute", "AuxiliaryHead", "BasicBlock"),
        **_of("layers.composite", "Multiply", "Maximum"),
        **_of("layers.block", "Bottleneck", "InceptionBlock", "DenseBlock"),
    },
    "loss": {
        **_of("losses.classification", "CrossEntropy", "NLL", "Focal", "MultiMargin"),
        **_of("losses.binary", "BCEWithLogits", "SigmoidFocal", "Hinge"),
        **_of("losses.regression", "MSE", "L1", "SmoothL1", "Huber", "SumOfSquares"),
        **_of("losses.divergence", "KLDiv"),
        **_of("losses.segmentation", "Dice"),
        **_of("losses.penalties", "L2Penalty", "L1Penalty"),
    },
    "metric": _of("metrics", "accuracy"),
    "optimizer": {
        **_of("optim.optimizers", "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Lion"),
        **_of("optim.muon", "Muon"),
    },
    "schedule": {
        **_of(
            "optim.schedules", "Constant", "Step", "MultiStep", "Exponential", "Cosine", "CosineRestarts", "OneCycle"
        ),
        **_of("optim.schedules", "Polynomial", "Inv", "SigmoidDecay", "Decay"),
        **_of("optim.plateau", "Plateau"),
    },
    "dataset": {
        **_of("data.digits", "Digits"),
        **_of("data.mnist", "MNIST", "FashionMNIST"),
        **_of("data.cifar", "CIFAR10", "CIFAR100"),
        **_of("data.fake", "FakeData"),
        **_of("data.dataset", "Arrays"),
        **_of("data.npz", "Npz"),
        **_of("data.csv", "Csv"),
        **_of("data.folder", "ImageFolder"),
    },
    "transform": {
        **_of("data.normalize", "Normalize"),
        **_of("data.transforms", "RandomCrop", "CenterCrop", "RandomHorizontalFlip", "Pad"),
        **_of("data.mix", "MixUp", "CutMix"),
        **_of("data.augment", "Cutout", "RandomResizedCrop", "ColorJitter", "ColorNoise"),
    },
    "init": _of(
        "core.init",
        "constant",
        "normal",
        "truncated_normal",
        "uniform",
        "xavier_normal",
        "xavier_uniform",
        "kaiming_normal",
        "kaiming_uniform",
        "orthogonal",
    ),
    "average": _of("optim.averaging", "EMA", "SWA"),
    "callback": {
        **_of("train.stopping", "EarlyStopping"),
        **_of("train.freezing", "Freeze"),
        **_of("train.logs", "JSONLines", "TensorBoard"),
    },
}

BASES: dict[Kind, tuple[str, ...]] = {
    "layer": ("layernet.core.layer:Layer",),
    "loss": ("layernet.losses.base:Loss", "layernet.losses.penalties:Penalty"),
    "metric": ("layernet.metrics:Metric",),
    "optimizer": ("layernet.optim.optimizer:Optimizer",),
    "schedule": ("layernet.optim.schedules:Schedule",),
    "dataset": ("layernet.data.dataset:Dataset",),
    "transform": ("layernet.data.transforms:Transform",),
    "init": ("layernet.core.init:Initializer",),
    "average": ("layernet.optim.averaging:Average",),
    "callback": ("layernet.train.callbacks:Callback",),
}
"""What a user's own class of each kind subclasses."""

PUBLIC: dict[str, str] = {
    **{
        place.partition(":")[2]: place
        for kind, table in BUILT_IN.items()
        if kind != "init"  # these stand in the module `layernet.init`
        for place in table.values()
    },
    **{place.partition(":")[2]: place for places in BASES.values() for place in places},
    **_of("core.net", "Net"),
    **_of("backend.device", "get_device"),
    **_of("core.param", "Param", "Buffer", "Const"),
    **_of("core.context", "Context", "Tape"),
    **_of("core.sequential", "Ref"),
    **_of("core.duration", "Duration"),
    **_of("layers.composite", "Block"),
    **_of("losses.objective", "Objective"),
    **_of("backend.arrays", "sum_to"),
    **_of("data.loader", "Loader"),
    **_of("config.experiment", "load_config"),
    **_of("train.experiment", "Experiment"),
    "load": "layernet.train.experiment:Experiment.load",
    "init": "layernet.core.init",
}
"""The public names of the package `layernet`: name -> module:attribute, or a module."""
