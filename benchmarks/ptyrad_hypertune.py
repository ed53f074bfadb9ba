"""One process of PtyRAD's own hypertune, as `ptyrad run PARAMS` starts it, on a CPU as well.

    python benchmarks/ptyrad_hypertune.py PARAMS TIMES.json

(`ptyrad run` itself stops on a machine without a GPU.) Writes how long it spent inside `recon_step`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ptydask.engines.ptyrad.torchvision_schema import make_importable


def main(params_path: str, times_path: str) -> None:
    make_importable()
    from ptyrad.params import load_params
    from ptyrad.runtime.logging import LoggingManager
    from ptyrad.solver import PtyRADSolver, hypertune

    spent = 0.0
    original = hypertune.recon_step

    def timed(*args: Any, **kwargs: Any) -> Any:
        nonlocal spent
        begin = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            spent += time.perf_counter() - begin

    hypertune.recon_step = timed
    LoggingManager(
        log_file="ptyrad_log.txt",
        log_dir="auto",
        prefix_time="datetime",
        prefix_jobid=0,
        append_to_file=True,
        show_timestamp=True,
    )
    params = load_params(params_path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    PtyRADSolver(params, device=device, seed=params["init_params"]["random_seed"]).run()
    Path(times_path).write_text(json.dumps({"recon_seconds": spent}))


if __name__ == "__main__":
    main(*sys.argv[1:])
