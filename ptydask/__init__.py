"""Tune electron-ptychography reconstructions with Dask and Optuna, into one HDF5 file."""

__version__ = "0.1.0"
