"""A trial apart from Optuna, Dask and files: its reports, checkpoint and pruning, and what becomes of a lost one.

Nothing is imported here: programs of trials import ``reporting``.
"""
