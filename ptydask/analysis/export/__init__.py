"""Results in the formats of other programs: tables, pictures, and PtyRAD's own files."""
