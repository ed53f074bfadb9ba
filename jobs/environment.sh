# Sourced by the scripts beside it: makes .venv and installs ptydask into it, once for every change of
# pyproject.toml or constraints.txt. Needs nothing but a Python >= 3.11; PYTHON names another one.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
constraints=constraints.txt

# choose_venv FOLDER: the environment that all below is about; .venv unless a script chooses another one.
choose_venv() { venv=$1 python=$1/bin/python ready=$1/.ptydask-ready; }
choose_venv "$root/.venv"

say() { printf '%s\n' "$*" >&2; }

recent_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        recent_enough "$PYTHON" && { printf '%s\n' "$PYTHON"; return; }
        say "PYTHON=$PYTHON is not a Python >= 3.11"
        return 1
    fi
    # Each candidate is run, not only looked up: a pyenv shim is on PATH for versions that are not active.
    for candidate in python3.13 python3.12 python3.11 python3 python python3.14; do
        recent_enough "$candidate" && { printf '%s\n' "$candidate"; return; }
    done
    say "ptydask needs a Python >= 3.11, and none was found on PATH; install one, or set PYTHON=/path/to/python"
    return 1
}

venv_works() { recent_enough "$python" && "$python" -m pip --version >/dev/null 2>&1; }

make_venv() {
    local found
    if venv_works; then return; fi
    found=$(find_python)
    if ! "$found" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        say "$found cannot make virtual environments: its modules venv and ensurepip are missing" \
            "(on Debian and Ubuntu: apt-get install python3-venv)"
        return 1
    fi
    say "making $venv with $("$found" --version)"
    "$found" -m venv --clear "$venv"
}

# What the environment was made from: the requirements, and the folder, which an editable install names.
requirements() { (cd "$root" && cat pyproject.toml "$constraints" && printf '%s\n' "$root") | cksum; }

# prepare EXTRAS: the environment with these extras of ptydask (comma-separated). Seconds when it is there already.
# The note that it is ready is written last, so an interrupted installation is taken up again. It names every extra that
# was installed from these requirements.
prepare() {
    local wanted=$1 stamp extra there="" missing=""
    stamp=$(requirements)
    make_venv
    if [ -f "$ready" ] && [ "$(head -n 1 "$ready")" = "$stamp" ]; then there=$(tail -n 1 "$ready"); fi
    for extra in ${wanted//,/ }; do
        case ",$there," in *",$extra,"*) ;; *) missing=$missing,$extra ;; esac
    done
    if [ -z "$missing" ]; then return; fi
    rm -f "$ready"
    say "installing ptydask[$wanted] into $venv (the first time this takes some minutes)"
    (cd "$root" && "$python" -m pip install --quiet --disable-pip-version-check -c "$constraints" -e ".[$wanted]")
    there=$there$missing
    printf '%s\n%s\n' "$stamp" "${there#,}" >"$ready.part"
    mv "$ready.part" "$ready"
}
