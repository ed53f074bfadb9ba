#!/usr/bin/env bash
# Benchmarks: jobs/bench.sh [vs_ptyrad|scaling|chaos|store|command] [its arguments]
# vs_ptyrad, where none is named: ptydask beside PtyRAD's own hypertune on the same trials.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

name=vs_ptyrad
case "${1:-}" in vs_ptyrad | scaling | chaos | store | command) name=$1; shift ;; esac
prepare ptyrad,analysis,test
exec "$python" "$root/benchmarks/$name.py" "$@"
