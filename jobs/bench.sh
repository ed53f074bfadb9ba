#!/usr/bin/env bash
# Benchmarks: jobs/bench.sh [NAME [its arguments]]. Without a name, all programs of docs/benchmarks.md, one after another,
# each of which writes its section anew (page; half an hour on two cores). With one, that program, and with --write its
# section, where it has one. NAME is one of
# vs_ptyrad: ptydask beside PtyRAD's own hypertune on the same trials.
# orchestration: what a trial costs that does nothing, beside Optuna on four storages, optuna-distributed and Ray Tune, which
#   are installed into benchmarks/cache.
# scaling: workers that are busy, 1 to 50, and 200 that sleep.
# messages: what a message costs, and how many workers one driver carries by that.
# chaos, store, command: random faults; the results file; what a trial of a program costs.
# search: iterations to a planted truth; its two problems by abTEM want the extra bench (pip install 'ptydask[bench]').
# staged: lists of stages beside one flat study, on the problems of search.
# earlier: a second data set with --from the first one's study and without, on the problems of search.
# slopes: the slopes of a trial's loss beside differences of whole trials, on the problems of search.
# guess, guess_large: guesses of planted scans beside the truth; time and memory of a guess on 16 GiB.
# metrics: what each metric chooses on data whose specimen is known, and how much worse the object is there.
# engine: operations of an iteration, as on a GPU, and seconds: PtyRAD's own, and with each fast path alone.
# start: how long commands take to begin, and a run to its first iteration.
# threads: an iteration of one worker with all cores and of one a core, beside busy processes.
# memory: what workers of one machine hold with one copy of the data and with one each; a worker and a driver over many trials.
# queue_memory: what workers of a queue hold in each study, beside that study alone.
# upkeep: verify, pack, thinning, report and all that reads a study, of thousands of tiny trials.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

extras=ptyrad,analysis,test
case "${1-page}" in
    page | vs_ptyrad | orchestration | scaling | messages | chaos | store | command | threads | start | upkeep) name=${1-page} ;;
    # these compute one trial at a time, and the Gaussian processes of search are small
    search | staged | earlier | slopes | guess | guess_large | metrics | memory | queue_memory | engine)
        name=$1
        export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} ;;
    *)
        names=
        while IFS= read -r line; do
            if [[ $line =~ ^#\ ([a-z_,\ ]+):\  ]]; then names+="${names:+, }${BASH_REMATCH[1]}"; fi
        done <"${BASH_SOURCE[0]}"
        say "no benchmark is called $1; there are $names"
        exit 2 ;;
esac
if [ $# -gt 0 ]; then shift; fi
if [[ $name =~ ^(search|guess|guess_large)$ ]]; then extras=$extras,guess; fi
prepare "$extras"
exec "$python" "$root/benchmarks/$name.py" "$@"
