"""PtyRAD's params files."""
