"""``python -m ptydask``."""

import sys

from ptydask.cli import main

if __name__ == "__main__":
    sys.exit(main())
