"""Optuna's storage for many workers: one journal file, one process that writes it.

``journal``    the file: append, read from a position on, survive a torn end
``transport``  Optuna's JournalStorage over the Dask connection
``urls``       what a storage URL asks for, and connections to it
``mirror``     the driver's copy of a study in SQLite
"""
