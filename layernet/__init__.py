"""layernet: layer-based training with hand-written forward and backward.

    import layernet as ln

    net = ln.Net([ln.Conv2d(20, 5), ln.ReLU(), ln.Flatten(), ln.Linear(10)], input_shape=(28, 28, 1)).bind("cpu")

The public names are loaded when they are first used: importing the package imports neither numpy nor anything large.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from layernet.backend.arrays import sum_to as sum_to
    from layernet.backend.device import get_device as get_device
    from layernet.config.experiment import load_config as load_config
    from layernet.core import init as init
    from layernet.core.context import Context as Context
    from layernet.core.context import Tape as Tape
    from layernet.core.duration import Duration as Duration
    from layernet.core.init import Initializer as Initializer
    from layernet.core.layer import Layer as Layer
    from layernet.core.net import Net as Net
    from layernet.core.param import Buffer as Buffer
    from layernet.core.param import Const as Const
    from layernet.core.param import Param as Param
    from layernet.core.sequential import Ref as Ref
    from layernet.core.sequential import Sequential as Sequential
    from layernet.data.augment import ColorJitter as ColorJitter
    from layernet.data.augment import ColorNoise as ColorNoise
    from layernet.data.augment import Cutout as Cutout
    from layernet.data.augment import RandomResizedCrop as RandomResizedCrop
    from layernet.data.cifar import CIFAR10 as CIFAR10
    from layernet.data.cifar import CIFAR100 as CIFAR100
    from layernet.data.csv import Csv as Csv
    from layernet.data.dataset import Arrays as Arrays
    from layernet.data.dataset import Dataset as Dataset
    from layernet.data.digits import Digits as Digits
    from layernet.data.fake import FakeData as FakeData
    from layernet.data.folder import ImageFolder as ImageFolder
    from layernet.data.loader import Loader as Loader
    from layernet.data.mix import CutMix as CutMix
    from layernet.data.mix import MixUp as MixUp
    from layernet.data.mnist import MNIST as MNIST
    from layernet.data.mnist import FashionMNIST as FashionMNIST
    from layernet.data.normalize import Normalize as Normalize
    from layernet.data.npz import Npz as Npz
    from layernet.data.transforms import CenterCrop as CenterCrop
    from layernet.data.transforms import Pad as Pad
    from layernet.data.transforms import RandomCrop as RandomCrop
    from layernet.data.transforms import RandomHorizontalFlip as RandomHorizontalFlip
    from layernet.data.transforms import Transform as Transform
    from layernet.layers.activation import GELU as GELU
    from layernet.layers.activation import LeakyReLU as LeakyReLU
    from layernet.layers.activation import PReLU as PReLU
    from layernet.layers.activation import ReLU as ReLU
    from layernet.layers.activation import Sigmoid as Sigmoid
    from layernet.layers.activation import SiLU as SiLU
    from layernet.layers.activation import Softmax as Softmax
    from layernet.layers.activation import Tanh as Tanh
    from layernet.layers.arithmetic import Abs as Abs
    from layernet.layers.arithmetic import Affine as Affine
    from layernet.layers.arithmetic import Exp as Exp
    from layernet.layers.arithmetic import Log as Log
    from layernet.layers.arithmetic import Power as Power
    from layernet.layers.arithmetic import Sqrt as Sqrt
    from layernet.layers.arithmetic import Square as Square
    from layernet.layers.block import Bottleneck as Bottleneck
    from layernet.layers.block import DenseBlock as DenseBlock
    from layernet.layers.block import InceptionBlock as InceptionBlock
    from layernet.layers.border import Crop as Crop
    from layernet.layers.border import Nailbed as Nailbed
    from layernet.layers.border import ReflectionPad2d as ReflectionPad2d
    from layernet.layers.border import ReplicationPad2d as ReplicationPad2d
    from layernet.layers.border import ZeroPad2d as ZeroPad2d
    from layernet.layers.composite import Add as Add
    from layernet.layers.composite import AuxiliaryHead as AuxiliaryHead
    from layernet.layers.composite import BasicBlock as BasicBlock
    from layernet.layers.composite import Block as Block
    from layernet.layers.composite import Concat as Concat
    from layernet.layers.composite import Maximum as Maximum
    from layernet.layers.composite import Multiply as Multiply
    from layernet.layers.composite import Recompute as Recompute
    from layernet.layers.composite import Residual as Residual
    from layernet.layers.conv import Conv1d as Conv1d
    from layernet.layers.conv import Conv2d as Conv2d
    from layernet.layers.conv_transpose import ConvTranspose2d as ConvTranspose2d
    from layernet.layers.dropout import Dropout as Dropout
    from layernet.layers.dropout import Dropout2d as Dropout2d
    from layernet.layers.dropout import DropPath as DropPath
    from layernet.layers.dropout import GaussianNoise as GaussianNoise
    from layernet.layers.embedding import Embedding as Embedding
    from layernet.layers.linear import Bias as Bias
    from layernet.layers.linear import Linear as Linear
    from layernet.layers.linear import Scale as Scale
    from layernet.layers.local import Local2d as Local2d
    from layernet.layers.local_norm import LocalContrastNorm as LocalContrastNorm
    from layernet.layers.local_norm import LocalResponseNorm as LocalResponseNorm
    from layernet.layers.norm import BatchNorm as BatchNorm
    from layernet.layers.norm import GroupNorm as GroupNorm
    from layernet.layers.norm import InstanceNorm2d as InstanceNorm2d
    from layernet.layers.norm import LayerNorm as LayerNorm
    from layernet.layers.norm import RMSNorm as RMSNorm
    from layernet.layers.pool import AvgPool2d as AvgPool2d
    from layernet.layers.pool import GlobalAvgPool2d as GlobalAvgPool2d
    from layernet.layers.pool import MaxAbsPool2d as MaxAbsPool2d
    from layernet.layers.pool import MaxPool2d as MaxPool2d
    from layernet.layers.pool1d import AvgPool1d as AvgPool1d
    from layernet.layers.pool1d import MaxPool1d as MaxPool1d
    from layernet.layers.pool_to_size import AdaptiveAvgPool2d as AdaptiveAvgPool2d
    from layernet.layers.pool_to_size import AdaptiveMaxPool2d as AdaptiveMaxPool2d
    from layernet.layers.pool_to_size import GlobalMaxPool2d as GlobalMaxPool2d
    from layernet.layers.pool_to_size import Maxout as Maxout
    from layernet.layers.rearrange import Permute as Permute
    from layernet.layers.rearrange import PixelShuffle as PixelShuffle
    from layernet.layers.rearrange import PixelUnshuffle as PixelUnshuffle
    from layernet.layers.rearrange import Slice as Slice
    from layernet.layers.rearrange import Squeeze as Squeeze
    from layernet.layers.rearrange import Unsqueeze as Unsqueeze
    from layernet.layers.rectifier import ELU as ELU
    from layernet.layers.rectifier import SELU as SELU
    from layernet.layers.rectifier import Hardswish as Hardswish
    from layernet.layers.rectifier import Hardtanh as Hardtanh
    from layernet.layers.rectifier import Mish as Mish
    from layernet.layers.rectifier import ReLU6 as ReLU6
    from layernet.layers.rectifier import Softplus as Softplus
    from layernet.layers.resample import GaussianBlur as GaussianBlur
    from layernet.layers.resample import Resize as Resize
    from layernet.layers.resample import RGBToLab as RGBToLab
    from layernet.layers.resample import RGBToYUV as RGBToYUV
    from layernet.layers.resample import Upsample as Upsample
    from layernet.layers.separable import SeparableConv2d as SeparableConv2d
    from layernet.layers.shape import Flatten as Flatten
    from layernet.layers.shape import Reshape as Reshape
    from layernet.layers.squash import GLU as GLU
    from layernet.layers.squash import LogSigmoid as LogSigmoid
    from layernet.layers.squash import LogSoftmax as LogSoftmax
    from layernet.layers.squash import ScaledTanh as ScaledTanh
    from layernet.layers.squash import Softsign as Softsign
    from layernet.layers.squash import Tanhshrink as Tanhshrink
    from layernet.layers.weight_norm import WeightNorm as WeightNorm
    from layernet.losses.base import Loss as Loss
    from layernet.losses.binary import BCEWithLogits as BCEWithLogits
    from layernet.losses.binary import Hinge as Hinge
    from layernet.losses.binary import SigmoidFocal as SigmoidFocal
    from layernet.losses.classification import NLL as NLL
    from layernet.losses.classification import CrossEntropy as CrossEntropy
    from layernet.losses.classification import Focal as Focal
    from layernet.losses.classification import MultiMargin as MultiMargin
    from layernet.losses.divergence import KLDiv as KLDiv
    from layernet.losses.objective import Objective as Objective
    from layernet.losses.penalties import L1Penalty as L1Penalty
    from layernet.losses.penalties import L2Penalty as L2Penalty
    from layernet.losses.penalties import Penalty as Penalty
    from layernet.losses.regression import L1 as L1
    from layernet.losses.regression import MSE as MSE
    from layernet.losses.regression import Huber as Huber
    from layernet.losses.regression import SmoothL1 as SmoothL1
    from layernet.losses.regression import SumOfSquares as SumOfSquares
    from layernet.losses.segmentation import Dice as Dice
    from layernet.metrics import Metric as Metric
    from layernet.metrics import accuracy as accuracy
    from layernet.optim.averaging import EMA as EMA
    from layernet.optim.averaging import SWA as SWA
    from layernet.optim.averaging import Average as Average
    from layernet.optim.muon import Muon as Muon
    from layernet.optim.optimizer import Optimizer as Optimizer
    from layernet.optim.optimizers import SGD as SGD
    from layernet.optim.optimizers import Adagrad as Adagrad
    from layernet.optim.optimizers import Adam as Adam
    from layernet.optim.optimizers import AdamW as AdamW
    from layernet.optim.optimizers import Lion as Lion
    from layernet.optim.optimizers import RMSprop as RMSprop
    from layernet.optim.plateau import Plateau as Plateau
    from layernet.optim.schedules import Constant as Constant
    from layernet.optim.schedules import Cosine as Cosine
    from layernet.optim.schedules import CosineRestarts as CosineRestarts
    from layernet.optim.schedules import Decay as Decay
    from layernet.optim.schedules import Exponential as Exponential
    from layernet.optim.schedules import Inv as Inv
    from layernet.optim.schedules import MultiStep as MultiStep
    from layernet.optim.schedules import OneCycle as OneCycle
    from layernet.optim.schedules import Polynomial as Polynomial
    from layernet.optim.schedules import Schedule as Schedule
    from layernet.optim.schedules import SigmoidDecay as SigmoidDecay
    from layernet.optim.schedules import Step as Step
    from layernet.train.callbacks import Callback as Callback
    from layernet.train.experiment import Experiment as Experiment
    from layernet.train.freezing import Freeze as Freeze
    from layernet.train.logs import JSONLines as JSONLines
    from layernet.train.logs import TensorBoard as TensorBoard
    from layernet.train.stopping import EarlyStopping as EarlyStopping

    load = Experiment.load


def __getattr__(name: str) -> Any:
    from layernet.config.lookup import load
    from layernet.config.names import PUBLIC

    if name not in PUBLIC:
        raise AttributeError(f"module 'layernet' has no attribute {name!r}")
    value = globals()[name] = load(PUBLIC[name])
    return value


def __dir__() -> list[str]:
    from layernet.config.names import PUBLIC

    return sorted([*globals(), *PUBLIC])
