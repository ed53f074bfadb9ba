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

prepare ptyrad,analysis,dashboard,test,postgres,redis,cmaes,gp,ldct
cd "$root"
export PATH=$root/.venv/bin:$PATH
if [ "$#" -gt 0 ]; then exec pytest "$@"; fi
install_programs
ruff check .
ruff format --check .
mypy
lint-imports
exec pytest
