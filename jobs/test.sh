#!/usr/bin/env bash
# All checks: style, types, the import contract, then the tests. With arguments, only pytest, with them:
# jobs/test.sh tests/test_demo.py -k rotation
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

have_databases() {
    command -v redis-server >/dev/null &&
        { command -v postgres >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; }
}

have_slurm() (
    PATH=$PATH:/usr/local/sbin:/usr/sbin
    for program in slurmctld slurmd sbatch munged; do command -v "$program" >/dev/null || exit 1; done
)

have_browser() { command -v chromium >/dev/null && command -v chromedriver >/dev/null; }

# Tests of shared storage and of SLURM run servers of their own, those of the report a browser; without these
# programs they are skipped.
install_programs() {
    local packages=()
    have_databases || packages+=(postgresql redis-server)
    have_slurm || packages+=(slurm-wlm munge)
    have_browser || packages+=(chromium chromium-driver)
    if [ "${#packages[@]}" = 0 ] || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then return; fi
    say "installing programs for the tests: ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}"; } >&2 && return
    say "they could not all be installed"
    [ "${CI:-}" != true ]
}

# Tests on SLURM wait most of their time, the others compute: they run side by side, and some of the others with the
# former. What runs with SLURM is shown when it has ended, the rest as it goes. Ctrl-C ends both.
test_side_by_side() {
    local folder slurm others code=0
    folder=$(mktemp -d)
    set -m # each a process group of its own, in which Ctrl-C is heard
    pytest -m "slurm or second" -p no:cacheprovider --junitxml="$folder/slurm.xml" </dev/null >"$folder/slurm.txt" 2>&1 &
    slurm=$!
    pytest -m "not slurm and not second" --junitxml="$folder/others.xml" </dev/null &
    others=$!
    trap 'kill -INT -- "-$slurm" "-$others" 2>/dev/null' INT TERM
    ended "$others" || code=$?
    ended "$slurm" || code=$?
    trap - INT TERM
    printf '\nThe tests on SLURM, and those that run with them:\n'
    cat "$folder/slurm.txt"
    if [ -n "${SLOWEST:-}" ]; then slowest "$SLOWEST" "$folder"/*.xml; fi
    rm -rf "$folder"
    return "$code"
}

# The exit code of a process, also where a signal interrupts the waiting.
ended() {
    local code=0
    wait "$1" || code=$?
    while kill -0 "$1" 2>/dev/null; do
        code=0
        wait "$1" || code=$?
    done
    return "$code"
}

# slowest COUNT FILE...: the tests of these JUnit files that took longest, with what was set up for them.
slowest() {
    python - "$@" <<'PY'
import sys
from xml.etree import ElementTree

count, *files = sys.argv[1:]
cases = [case.attrib for file in files for case in ElementTree.parse(file).iter("testcase")]
print(f"\nThe {count} slowest of {len(cases)} tests:")
for case in sorted(cases, key=lambda case: -float(case["time"]))[: int(count)]:
    print(f"{float(case['time']):7.1f} s  {case['classname']}::{case['name']}")
PY
}

prepare ptyrad,analysis,dashboard,test,postgres,redis,cmaes,gp,guess,ldct
cd "$root"
export PATH=$root/.venv/bin:$PATH
if [ "$#" -gt 0 ]; then exec pytest "$@"; fi
install_programs
ruff check .
ruff format --check .
mypy
lint-imports
test_side_by_side
