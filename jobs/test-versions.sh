#!/usr/bin/env bash
# The quick tests with older and newer versions, by hand: four environments in which every two of Python (which decides
# on PtyRAD's version), Optuna and HDF5 meet, together with that of jobs/test.sh. They are made once, in the folder VENVS
# (default: .venv-versions). PYTHON311 and PYTHON312 name interpreters that PATH does not have. Where pip finds no PyTorch
# for CPUs, an environment downloads and keeps some gigabytes of CUDA.
# Prints a table at the end; the exit status is 1 where a test failed or an environment could not be made.
# Usage: jobs/test-versions.sh [ARGUMENTS OF PYTEST in place of -m "not slow and not slurm"]
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

# Python, Optuna, h5py. The wheels of h5py hold HDF5: 3.15.1 has 1.14.6, 3.16.0 has 2.0.0.
combinations=(
    "3.11 4.5.0 3.16.0"
    "3.11 5.0.0 3.15.1"
    "3.12 4.5.0 3.15.1"
    "3.12 5.0.0 3.16.0"
)
row='%-8s %-16s %-8s %-8s %7s %7s %8s %8s\n'

interpreter() {
    local variable=PYTHON${1/./} found
    found=${!variable:-python$1}
    if "$found" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" >/dev/null 2>&1; then
        printf '%s\n' "$found"
        return
    fi
    say "$found is no Python $1 that runs; set $variable=/path/to/python$1"
    return 1
}

# What was installed, and what JUnit's file says of the tests, as one line. An expected failure counts as skipped.
summary() {
    "$python" - "$1" <<'END'
import platform, sys, xml.etree.ElementTree
from importlib.metadata import version
import h5py

suite = xml.etree.ElementTree.parse(sys.argv[1]).getroot().find("testsuite")
tests, failures, errors, skipped = (int(suite.get(key)) for key in ("tests", "failures", "errors", "skipped"))
failed = failures + errors
installed = platform.python_version(), version("ptyrad"), version("optuna"), h5py.version.hdf5_version
print(*installed, tests - failed - skipped, failed, skipped, round(float(suite.get("time"))))
END
}

# try_versions PYTHON OPTUNA H5PY ARGUMENTS: makes the environment and runs pytest in it. Its files lie beside it.
try_versions() {
    local status=0
    constraints=$venv.constraints
    sed -e "s/^optuna==.*/optuna==$2/" -e "s/^h5py==.*/h5py==$3/" "$root/constraints.txt" >"$constraints"
    if ! venv_works; then
        PYTHON=$(interpreter "$1")
    fi
    prepare ptyrad,analysis,dashboard,test,postgres,redis,cmaes,gp,ldct
    say "testing with Python $1, Optuna $2, h5py $3"
    cd "$root"
    PATH=$venv/bin:$PATH "$python" -m pytest -p no:cacheprovider --junit-xml="$venv.xml" "${@:4}" || status=$?
    summary "$venv.xml" >"$venv.row"
    return "$status"
}

venvs=${VENVS:-$root/.venv-versions}
mkdir -p "$venvs"
venvs=$(cd -- "$venvs" && pwd)
if [ "$#" = 0 ]; then set -- -m "not slow and not slurm"; fi
worst=0 rows=()
for combination in "${combinations[@]}"; do
    read -r version optuna h5py <<<"$combination"
    choose_venv "$venvs/python$version-optuna$optuna-h5py$h5py"
    rm -f "$venv.xml" "$venv.row"
    # Not behind `||`, where bash would go on after a failed step.
    set +e
    (set -e; try_versions "$version" "$optuna" "$h5py" "$@")
    [ "$?" = 0 ] || worst=1
    set -e
    rows+=("$(cat "$venv.row" 2>/dev/null || echo "$version - $optuna h5py-$h5py - - - -")")
done
# shellcheck disable=SC2059
{
    printf "\n$row" Python PtyRAD Optuna HDF5 passed failed skipped seconds
    for line in "${rows[@]}"; do
        read -r -a fields <<<"$line"
        printf "$row" "${fields[@]}"
    done
}
exit "$worst"
