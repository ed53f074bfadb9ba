#!/usr/bin/env bash
# The demo, from nothing: installs ptydask, writes a small synthetic 4D-STEM data set into a folder
# (default: ./demo), tries scan rotations and scales until the slopes say where the planted ones are, prints the best
# trial, and draws where the slopes led (FOLDER/demo-slopes.png) and a page with all trials (FOLDER/demo.html).
# Run again, it goes on where it stopped. Usage: jobs/demo.sh [FOLDER]
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

folder=${1:-demo}
prepare ptyrad,analysis
"$python" -m ptydask demo "$folder"
"$python" -m ptydask run "$folder/params.yaml" --cluster local --workers 2 --until-settled
"$python" -m ptydask best "$folder/demo.h5"
"$python" -m ptydask plot "$folder/demo.h5" slopes
"$python" -m ptydask report "$folder/demo.h5"
