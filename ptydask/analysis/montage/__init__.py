"""Images of trials side by side: which (``trial_images``), where (``sheet_layout``), the picture (``drawing``)."""

from ptydask.analysis.montage.trial_images import draw, ordered

__all__ = ["draw", "ordered"]
