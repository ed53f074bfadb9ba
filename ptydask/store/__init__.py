"""The results of a study in HDF5: trial files while it runs, one file in the end."""

from ptydask.store.reader import Results, TrialData
from ptydask.store.shard import Shard
from ptydask.store.study import Store
from ptydask.store.upkeep import verify

__all__ = ["Results", "Shard", "Store", "TrialData", "verify"]
