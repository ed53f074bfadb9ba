"""Images of trials side by side: ``trial_images`` says which, ``sheet_layout`` where, ``drawing`` paints them."""

from ptydask.analysis.montage.trial_images import draw, ordered

__all__ = ["draw", "ordered"]
