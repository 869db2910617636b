"""Objectives: losses, which look at outputs and targets, and penalties, which look at parameters.

Losses are called as torch.nn calls them, without the word Loss.
"""

from layernet.losses.base import LabelLoss as LabelLoss
from layernet.losses.base import Loss as Loss
from layernet.losses.base import backward as backward
from layernet.losses.base import forward as forward
from layernet.losses.base import inverse as inverse
from layernet.losses.binary import BCEWithLogits as BCEWithLogits
from layernet.losses.binary import Hinge as Hinge
from layernet.losses.binary import SigmoidFocal as SigmoidFocal
from layernet.losses.classification import NLL as NLL
from layernet.losses.classification import CrossEntropy as CrossEntropy
from layernet.losses.classification import Focal as Focal
from layernet.losses.classification import MultiMargin as MultiMargin
from layernet.losses.divergence import KLDiv as KLDiv
from layernet.losses.objective import Objective as Objective
from layernet.losses.objective import named as named
from layernet.losses.penalties import L1Penalty as L1Penalty
from layernet.losses.penalties import L2Penalty as L2Penalty
from layernet.losses.penalties import Penalty as Penalty
from layernet.losses.regression import L1 as L1
from layernet.losses.regression import MSE as MSE
from layernet.losses.regression import Huber as Huber
from layernet.losses.regression import SmoothL1 as SmoothL1
from layernet.losses.regression import SumOfSquares as SumOfSquares
from layernet.losses.segmentation import Dice as Dice
