"""HDF5 files that are no results files: measurements, the demo's data, PtyRAD's model files."""
