"""Files that describe a study. A format is one module and one entry point in ``ptydask.formats``."""
