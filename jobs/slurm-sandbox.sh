# Sourced by slurm-up.sh and slurm-down.sh: what a sandbox keeps where, and which processes are its own.
#
# DIR/slurm.conf, gres.conf, munge.key   what the daemons were started with; sandbox marks the folder as one
# DIR/run/NAME                           process id and command line of the daemon NAME
# DIR/log/NAME.log                       what it says; jobs.log: SLURM's own list of the jobs that ended
# DIR/state, DIR/nodeN                   slurmctld's memory, slurmd's spool

nodes=(node1 node2 node3)
daemons=(munged slurmctld "${nodes[@]}")

say() { printf '%s\n' "$*" >&2; }

path_before=$PATH
# Debian keeps daemons where plain users do not look.
for folder in /usr/local/sbin /usr/sbin /sbin; do
    case ":$PATH:" in *":$folder:"*) ;; *) PATH=$PATH:$folder ;; esac
done

# Nothing of a job or cluster around the sandbox may reach it.
while read -r name; do unset "$name"; done < <(compgen -v | grep -E '^(SLURM|SBATCH|SQUEUE|SCANCEL|SINFO|SRUN)_')

# use_folder [DIR]: sets dir, absolute.
use_folder() {
    dir=${1:-${XDG_RUNTIME_DIR:-/tmp}/ptydask-slurm-$(id -u)}
    case $dir in /*) ;; *) dir=$PWD/$dir ;; esac
    dir=${dir%/}
    export SLURM_CONF=$dir/slurm.conf
}

# Holds off every other up and down of this folder until this script ends. A down may have taken the folder
# away in the meantime; then the lock held is of a file that is gone.
lock() {
    while mkdir -p -m 700 "$dir" && [ -O "$dir" ]; do
        exec 9>>"$dir/lock"
        flock -w 60 9 || { say "another slurm-up.sh or slurm-down.sh has been at work on $dir for a minute"; exit 1; }
        if [ "$dir/lock" -ef /proc/self/fd/9 ]; then return; fi
    done
    say "$dir is not a folder of yours to write in"
    exit 1
}

# wait_for SECONDS COMMAND...: true as soon as the command is.
wait_for() {
    local until=$((SECONDS + $1 + 1))
    shift
    while ! "$@"; do
        if [ "$SECONDS" -ge "$until" ]; then return 1; fi
        sleep 0.05
    done
}

# running NAME: sets pid where the process noted for this daemon lives and is that daemon (an id may have been
# given to another process, and a zombie has no command line).
running() {
    local command
    { read -r pid && read -r command; } 2>/dev/null <"$dir/run/$1" || return 1
    [ "$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline")" = "$command " ]
}

# end NAME...: these daemons, at once. What they would write at a quiet end goes with the folder.
end() {
    local name
    for name in "$@"; do
        if running "$name"; then kill -KILL "$pid"; fi
        wait_for 10 not running "$name" || { say "$name (process $pid) does not end"; return 1; }
        rm -f "$dir/run/$name"
    done
}

not() { ! "$@"; }
