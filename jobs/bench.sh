#!/usr/bin/env bash
# Benchmarks: jobs/bench.sh [NAME] [its arguments]; NAME is one of
# vs_ptyrad, where none is named: ptydask beside PtyRAD's own hypertune on the same trials.
# orchestration: what a trial costs that does nothing, beside plain Optuna's.
# scaling, chaos, store, command: more workers; random faults; the results file; what a trial of a program costs.
# search: iterations to a planted truth; its two problems by abTEM want the extra bench (pip install 'ptydask[bench]').
# staged: lists of stages beside one flat study, on the problems of search.
# earlier: a second data set with --from the first one's study and without, on the problems of search.
# slopes: the slopes of a trial's loss beside differences of whole trials, on the problems of search.
# guess, guess_large: guesses of planted scans beside the truth; time and memory of a guess on 16 GiB.
# metrics: what each metric chooses on data whose specimen is known, and how much worse the object is there.
# memory: what workers of a queue hold in each study, beside that study alone.
# upkeep: verify, pack, thinning, report and all that reads a study, of thousands of tiny trials.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

name=vs_ptyrad extras=ptyrad,analysis,test
case "${1:-}" in
    vs_ptyrad | orchestration | scaling | chaos | store | command) name=$1; shift ;;
    # these compute one trial at a time, and the Gaussian processes of search are small
    search | staged | earlier | slopes | guess | guess_large | metrics | memory | upkeep)
        name=$1; shift
        export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} ;;
esac
if [[ $name =~ ^(search|guess|guess_large)$ ]]; then extras=$extras,guess; fi
prepare "$extras"
exec "$python" "$root/benchmarks/$name.py" "$@"
