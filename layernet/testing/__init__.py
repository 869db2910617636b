"""Checks for layers, losses and nets, of this package and of anybody.

from layernet.testing import check_layer, check_loss

def test_my_layer():
    check_layer(MyLayer(width=3), (8, 8, 4))

def test_my_loss():
    check_loss(MyLoss(), (5,))
"""

from layernet.testing.check_layer import CheckFailed, check_layer
from layernet.testing.check_loss import check_loss
from layernet.testing.configcheck import check_config
from layernet.testing.engine import Settings
from layernet.testing.gradcheck import check_net, gradcheck
from layernet.testing.report import Failure, Report, TensorResult

__all__ = [
    "CheckFailed",
    "Failure",
    "Report",
    "Settings",
    "TensorResult",
    "check_config",
    "check_layer",
    "check_loss",
    "check_net",
    "gradcheck",
]
