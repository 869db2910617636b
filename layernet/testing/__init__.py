"""Checks for layers, losses and nets, of this package and of anybody.

from layernet.testing import gradcheck

report = gradcheck(MyLayer(), (8, 8, 4))
assert report.ok, report
"""

from layernet.testing.configcheck import check_config
from layernet.testing.engine import Settings
from layernet.testing.gradcheck import check_net, gradcheck
from layernet.testing.report import Failure, Report, TensorResult

__all__ = ["Failure", "Report", "Settings", "TensorResult", "check_config", "check_net", "gradcheck"]
