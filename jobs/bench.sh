#!/usr/bin/env bash
# Benchmarks: jobs/bench.sh [vs_ptyrad|scaling|chaos|store|command|search|staged|slopes|metrics|memory] [its arguments]
# vs_ptyrad, where none is named: ptydask beside PtyRAD's own hypertune on the same trials.
# search: iterations to a planted truth; its two problems by abTEM want the extra bench (pip install 'ptydask[bench]').
# staged: lists of stages beside one flat study, on the problems of search.
# metrics: what each metric chooses on data whose specimen is known, and how much worse the object is there.
# memory: what workers of a queue hold in each study, beside that study alone.
# slopes: the slopes of a trial's loss beside differences of whole trials, on the problems of search.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

name=vs_ptyrad
case "${1:-}" in vs_ptyrad | scaling | chaos | store | command | search | staged | slopes | metrics | memory) name=$1; shift ;; esac
prepare ptyrad,analysis,test
# these compute one trial at a time, and the Gaussian processes of search are small
if [[ $name =~ ^(search|staged|slopes|metrics|memory)$ ]]; then export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}; fi
exec "$python" "$root/benchmarks/$name.py" "$@"
