#!/usr/bin/env bash
# The demo, from nothing: installs ptydask, writes a small synthetic 4D-STEM data set into a folder
# (default: ./demo), finds the scan rotation and scale that were planted in it, prints the best trial, and writes
# a page with all of them: FOLDER/demo.html.
# Run again, it goes on where it stopped. Usage: jobs/demo.sh [FOLDER]
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

folder=${1:-demo}
prepare ptyrad,analysis
"$python" -m ptydask demo "$folder"
"$python" -m ptydask run "$folder/params.yaml" --cluster local --workers 2
"$python" -m ptydask best "$folder/demo.h5"
"$python" -m ptydask report "$folder/demo.h5"
