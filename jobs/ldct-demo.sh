#!/usr/bin/env bash
# A sweep of ldct-benchmark's own training program, from nothing: installs ptydask with it, writes a small SYNTHETIC
# data set into a folder (default: ./ldct-demo), tunes CNN-10 on two CPU workers, prints the best trial with SSIM, PSNR
# and RMSE, and lays its network out as ldctbench-test reads it: FOLDER/wandb/best. No account, no network, no GPU.
# Run again, it goes on where it stopped. Usage: jobs/ldct-demo.sh [FOLDER]
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

folder=${1:-ldct-demo}
prepare ldct
"$python" "$root/jobs/ldct_data.py" "$folder/data"
export LDCTBENCH_DATAFOLDER
LDCTBENCH_DATAFOLDER=$(cd -- "$folder/data" && pwd)
export PATH=$root/.venv/bin:$PATH
# PyPI's torchvision does not import beside a CPU-only torch.
export PYTHONPATH=$root/jobs/torchvision_on_cpu${PYTHONPATH:+:$PYTHONPATH}
"$python" -m ptydask run "$root/configs/cnn10-demo.yaml" --trials 4 --cluster local --workers 2 \
    --results "$folder/cnn10-demo.h5"
"$python" -m ptydask best "$folder/cnn10-demo.h5"
# What export says on stderr is how to test the network, which the synthetic data do not allow.
exec 3>&1
said=$("$python" -m ptydask export "$folder/cnn10-demo.h5" run --trial best "$folder/wandb/best" --force 2>&1 >&3) || {
    say "$said"
    exit 1
}
say "$folder/wandb/best holds the best trial's W&B run, its network included, as ldctbench-test reads it;" \
    "ldctbench-test itself needs the real data set (LDCTBENCH_DATAFOLDER) and a CUDA GPU"
