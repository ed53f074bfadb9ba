"""Results files when nothing runs: packed, merged, verified, rebuilt, described."""
