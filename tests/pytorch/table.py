"""The whole table, and what is not in it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

from layernet.config.names import BUILT_IN
from tests.pytorch.entry import Row, measure
from tests.pytorch.layers import LAYERS
from tests.pytorch.losses import LOSSES
from tests.pytorch.optimizers import OPTIMIZERS

TABLE = [*LAYERS, *LOSSES, *OPTIMIZERS]

NO_COUNTERPART = {
    "Residual": "torch.nn leaves sums of branches to plain code",
    "Concat": "torch.nn leaves branches to plain code",
    "Add": "torch.nn leaves sums of branches to plain code",
    "Scale": "torch.nn leaves it to plain code",
    "Bias": "torch.nn leaves it to plain code",
    "Local2d": "torch.nn has no unshared filters; tests/layers/test_local.py loops",
    "Recompute": "torch.utils.checkpoint is a function, and changes no number",
    "AuxiliaryHead": "torch.nn leaves second outputs to plain code",
    "DropPath": "torchvision's StochasticDepth, not torch's",
    "GaussianNoise": "torch.nn has none",
    "MaxAbsPool2d": "cuda-convnet2's; tests/backend/test_pool.py has loops",
    "Slice": "torch.nn leaves indexing to plain code",
    "Permute": "torch.nn leaves it to plain code; tests/layers/test_rearrange.py compares it with numpy's",
    "Squeeze": "torch.nn leaves it to plain code; tests/layers/test_rearrange.py compares it with numpy's",
    "Crop": "torch.nn leaves indexing to plain code",
    "Nailbed": "cuda-convnet's; tests/layers/test_border.py has loops",
    "Resize": "cuda-convnet's; tests/layers/test_resample.py has loops",
    "GaussianBlur": "cuda-convnet's, with zeros beyond the edge; tests/layers/test_resample.py has loops",
    "RGBToLab": "cuda-convnet's; tests/layers/test_resample.py has the formula",
    "RGBToYUV": "cuda-convnet's; tests/layers/test_resample.py has the matrix",
    "Maxout": "not in torch.nn; tests/layers/test_pool_to_size.py has loops",
    "Lion": "torch.optim has none; tests/optim/test_optimizers.py holds it to a naive loop",
    "Multiply": "torch.nn leaves products of branches to plain code",
    "Maximum": "torch.nn leaves it to plain code, and torch.maximum shares the gradient of ties",
    "Bottleneck": "torchvision's; tests/layers/test_block.py builds it of torch.nn.functional",
    "InceptionBlock": "torchvision's; tests/layers/test_block.py builds it of torch.nn.functional",
    "DenseBlock": "torchvision's; tests/layers/test_block.py builds it of torch.nn.functional",
    "BasicBlock": "torchvision's, not torch's; tests/layers/test_block.py builds it of torch.nn.functional",
}
"""What PyTorch does not have, and why."""


def rows(draws: int, names: Sequence[str] = ()) -> Iterator[Row]:
    """The measured rows, of these names or of all, `draws` examples an entry."""
    for name in dict.fromkeys(entry.name for entry in TABLE):
        if names and name not in names:
            continue
        row = Row(name)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Using padding='same' with even kernel")
            for entry in TABLE:
                if entry.name == name:
                    measure(entry, draws, row)
        yield row


def complaints() -> list[str]:
    """What is wrong with the table itself: a built-in layer, loss or optimizer in neither list, or a name in vain."""
    built_in = {name for kind in ("layer", "loss", "optimizer") for name in BUILT_IN[kind]}  # type: ignore[index]
    compared = {entry.name for entry in TABLE}
    return [
        *(f"{name} is compared with nothing" for name in sorted(built_in - compared - set(NO_COUNTERPART))),
        *(f"{name} is in the table and in NO_COUNTERPART" for name in sorted(compared & set(NO_COUNTERPART))),
        *(f"{name} is not built in" for name in sorted((compared | set(NO_COUNTERPART)) - built_in)),
    ]
