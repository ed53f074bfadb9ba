#!/usr/bin/env bash
# ptydask beside PtyRAD's own hypertune on the same trials; the arguments are benchmarks/vs_ptyrad.py's.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

prepare ptyrad
exec "$python" "$root/benchmarks/vs_ptyrad.py" "$@"
