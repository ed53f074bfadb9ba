"""What may be tried: ranges, choices, distributions by their quantiles; what of PtyRAD and of sweeps can be tuned."""
