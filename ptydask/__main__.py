"""``python -m ptydask``."""

import sys

from ptydask.cli import program

if __name__ == "__main__":
    sys.exit(program())
