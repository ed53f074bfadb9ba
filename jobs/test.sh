#!/usr/bin/env bash
# All checks: style, types, the import contract, then the tests. With arguments, only pytest, with them:
# jobs/test.sh tests/test_demo.py -k rotation
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

have_servers() {
    command -v redis-server >/dev/null &&
        { command -v postgres >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; }
}

# Tests of shared storage run servers of their own; without their programs they are skipped.
install_servers() {
    if have_servers || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then return; fi
    say "installing PostgreSQL's and Redis's server programs for the tests"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql redis-server; } >&2 && return
    say "PostgreSQL or Redis could not be installed"
    [ "${CI:-}" != true ]
}

prepare ptyrad,test,postgres,redis,cmaes,gp
cd "$root"
export PATH=$root/.venv/bin:$PATH
if [ "$#" -gt 0 ]; then exec pytest "$@"; fi
install_servers
ruff check .
ruff format --check .
mypy
lint-imports
exec pytest
