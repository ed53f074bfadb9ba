"""What the process that workers are forks of imports last: what is there by then stays, and no fork looks at it again.

A whole collection takes a fork 50 ms otherwise, and makes each page that it looks at the fork's own. Workers begin to
collect what they make themselves.
"""

from __future__ import annotations

import gc

gc.freeze()
gc.enable()
