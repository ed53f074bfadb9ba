#!/usr/bin/env bash
# Benchmarks: jobs/bench.sh [vs_ptyrad|scaling|chaos|store|command|search|slopes] [its arguments]
# vs_ptyrad, where none is named: ptydask beside PtyRAD's own hypertune on the same trials.
# search: iterations to a planted truth; its two problems by abTEM want the extra bench (pip install 'ptydask[bench]').
# slopes: the slopes of a trial's loss beside differences of whole trials, on the problems of search.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

name=vs_ptyrad
case "${1:-}" in vs_ptyrad | scaling | chaos | store | command | search | slopes) name=$1; shift ;; esac
prepare ptyrad,analysis,test
# these compute one trial at a time, and the Gaussian processes of search are small
if [ "$name" = search ] || [ "$name" = slopes ]; then export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}; fi
exec "$python" "$root/benchmarks/$name.py" "$@"
