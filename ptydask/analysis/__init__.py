"""What is done with the results of a study: tables, pictures, a report, exports, and the way in from PtyRAD."""
