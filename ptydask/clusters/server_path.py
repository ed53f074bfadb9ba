"""What the process that workers are forks of imports first.

Like its driver it is not to import what lies in the folder that the command was started in, as ``python -c`` does.
"""

from __future__ import annotations

import sys

sys.path[:] = [folder for folder in sys.path if folder]
