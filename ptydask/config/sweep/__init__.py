"""W&B's sweep files."""
