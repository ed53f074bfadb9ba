"""Where a search goes next, and whether it has arrived: pure decisions, NumPy alone.

``agreement``         whether the values and the slopes of trials belong together
``coordinates``       points and slopes in the unit cube of a search space
``early_end``         whether a trial under way has told enough
``gaussian_process``  a model of values and slopes together
``next_point``        the point that the model finds most promising
``optimum``           where the optimum lies between the points that were tried, and how well that is known
``turns``             whether the slopes choose the next point, or the file's sampler
"""

from ptydask.proposals.early_end import has_told_enough as has_told_enough
from ptydask.proposals.early_end import judged_after as judged_after
from ptydask.proposals.next_point import PRUNED_DOUBT as PRUNED_DOUBT
from ptydask.proposals.next_point import TrialEvidence as TrialEvidence
from ptydask.proposals.next_point import propose_point as propose_point
from ptydask.proposals.optimum import locate_optimum as locate_optimum
from ptydask.proposals.optimum import read_evidence as read_evidence
from ptydask.proposals.turns import PastTrial as PastTrial
from ptydask.proposals.turns import sampler_is_ahead as sampler_is_ahead
from ptydask.proposals.turns import slopes_lead as slopes_lead
