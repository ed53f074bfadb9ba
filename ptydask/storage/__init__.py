"""Optuna's storage for many workers: one journal file, one process that writes it.

``journal``    the file: append, read from a position on, survive a torn end
``transport``  the journal over the Dask connection
``ahead``      what a process writes of its own trial without waiting
``study_journal``  Optuna's JournalStorage, for studies of many thousand trials
``urls``       what a storage URL asks for, and connections to it
``mirror``     the driver's copy of a study in SQLite
"""
