#!/usr/bin/env bash
# A real SLURM on this machine, for tests: slurmctld, three nodes of 4 CPUs, 4 GiB and 2 GPUs (only their numbers
# are real), munge with a key of its own; all on loopback and under one folder, as root or as anybody else.
#
# eval "$(jobs/slurm-up.sh [DIR])"; sbatch ...; jobs/slurm-down.sh [DIR]
#
# Prints what to export; what it does is said on stderr. DIR is a folder of this user under $XDG_RUNTIME_DIR or
# /tmp where none is given. On a sandbox that is up it changes nothing; what has died in one is started again
# with the jobs kept. jobs/slurm-up.sh DIR DAEMON... starts only these: munged, slurmctld, node1, node2, node3.
#
# Partitions: gpu (the default; its jobs make way and are requeued), high (goes before gpu), short (jobs may take
# one minute), closed (is down: its jobs wait), cpu (a node that is down and has no GPUs).
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/slurm-sandbox.sh"
use_folder "${1:-}"

have_slurm() {
    local program
    for program in slurmctld slurmd sbatch scontrol; do
        command -v "$program" >/dev/null || return 1
    done
}

# The packages would start daemons of their own where there is a systemd; those of an unconfigured SLURM give up.
install_slurm() {
    if have_slurm && command -v munged >/dev/null; then return; fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing SLURM and munge"
        DEBIAN_FRONTEND=noninteractive
        export DEBIAN_FRONTEND
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge; } >&2 || true
    fi
    if have_slurm; then return; fi
    say "slurmctld, slurmd, sbatch and scontrol are needed (on Debian and Ubuntu: apt-get install slurm-wlm munge)"
    return 1
}

# slurmd listens on DIR/node1/node1_JOB.STEP, and a socket's path has at most 107 characters.
check_folder() {
    case $dir in *[!A-Za-z0-9_./+-]*) say "slurm.conf cannot name $dir: use letters, digits and _ . + - only"; exit 1 ;; esac
    if [ "${#dir}" -gt 75 ]; then say "$dir is too long for SLURM's sockets: 75 characters at most"; exit 1; fi
    if [ -e "$dir/sandbox" ] || [ ! -e "$dir" ] || [ -z "$(ls -A "$dir" | grep -vx lock)" ]; then return; fi
    say "$dir holds something else: name an empty or a new folder"
    exit 1
}

answers() { (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# The first of four ports in a row that nobody listens on, below those that systems give to outgoing connections.
free_ports() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        if ! { answers $port || answers $((port + 1)) || answers $((port + 2)) || answers $((port + 3)); }; then break; fi
    done
    printf '%s\n' "$port"
}

write_configuration() {
    local port host user auth number
    port=$(free_ports)
    # Names that nobody has to resolve: each comes with its address.
    host=$(uname -n)
    host=${host%%.*}
    user=$(id -un 2>/dev/null || id -u)
    if command -v munged >/dev/null && [ "$1" = munge ]; then
        # Requeued jobs wait until their old credential cannot be used any more: 2 minutes if not said otherwise.
        auth="AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$dir/munge.socket,cred_expire=5"
        (umask 077 && head -c 1024 /dev/urandom >"$dir/munge.key")
    else
        auth="AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5"
    fi
    cat >"$dir/slurm.conf" <<END
ClusterName=sandbox
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$user
SlurmdUser=$user
$auth
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/%n
SlurmctldPidFile=$dir/run/slurmctld.own
SlurmdPidFile=$dir/run/%n.own
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/%n.log
SlurmdParameters=config_overrides
SlurmctldTimeout=10
SlurmdTimeout=8
MessageTimeout=5
ReturnToService=2
InactiveLimit=0
KillWait=3
MinJobAge=300
WaitTime=0
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
# linuxproc lets processes of a job escape
ProctrackType=proctrack/pgid
TaskPlugin=task/none
PropagateResourceLimits=NONE
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$dir/log/jobs.log
SchedulerType=sched/backfill
# The main scheduler every second. Backfill seldom: jobs that it starts are not written to the state until minutes
# later, and a slurmctld that is killed meanwhile would start them twice.
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=10,batch_sched_delay=0,requeue_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
DefMemPerCPU=256
NodeName=DEFAULT CPUs=4 Boards=1 SocketsPerBoard=1 CoresPerSocket=4 ThreadsPerCore=1 RealMemory=4096
$(for number in 1 2 3; do echo "NodeName=node$number NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + number)) Gres=gpu:2"; done)
NodeName=node4 NodeHostname=nowhere NodeAddr=127.0.0.1 Port=1 State=DOWN
PartitionName=DEFAULT Nodes=node[1-3] DefaultTime=60 MaxTime=1440 PriorityTier=1 PreemptMode=REQUEUE State=UP
PartitionName=gpu Default=YES
PartitionName=high PriorityTier=10 PreemptMode=OFF
PartitionName=short DefaultTime=1 MaxTime=1
PartitionName=closed State=DOWN
PartitionName=cpu Nodes=node4
END
    printf '%s\n' "NodeName=node[1-3] Name=gpu File=$dir/gpu[0-1]" >"$dir/gres.conf"
    # A GPU's number is that of its device file, which has to be a device; containers have few of them.
    ln -s /dev/null "$dir/gpu0"
    ln -s /dev/null "$dir/gpu1"
}

command_of() {
    case $1 in
        munged)
            command=(munged --foreground --force "--socket=$dir/munge.socket" "--key-file=$dir/munge.key"
                "--pid-file=$dir/run/munged.own" "--seed-file=$dir/munge.seed")
            if munged --help | grep -q -e --origin; then command+=(--origin=127.0.0.1); fi
            ;;
        slurmctld) command=(slurmctld -D -i -f "$dir/slurm.conf") ;;
        *) command=(slurmd -D -N "$1" -f "$dir/slurm.conf") ;;
    esac
    command[0]=$(command -v "${command[0]}")
}

# start NAME: as a session of its own, so that no Ctrl-C meant for its starter reaches it, and holding nothing open.
start() {
    local command
    if running "$1"; then return; fi
    command_of "$1"
    mkdir -p "$dir/$1"
    setsid env -i PATH="$PATH" HOME="${HOME:-/}" LANG=C "${command[@]}" \
        </dev/null >"$dir/log/$1.out" 2>&1 9>&- &
    disown
    printf '%s\n%s\n' "$!" "${command[*]}" >"$dir/run/$1"
    wait_for 5 started "$1" "$!" && running "$1"
}

# Until setsid and env have made way the process has another name.
started() { running "$1" || not kill -0 "$2" 2>/dev/null; }

munge_answers() { [ ! -e "$dir/munge.key" ] || munge -n -S "$dir/munge.socket" >/dev/null 2>&1; }
slurmctld_answers() { timeout 5 scontrol ping 2>/dev/null | grep -q 'is UP'; }

# A star marks a node that does not answer.
nodes_answer() {
    local states
    states=$(timeout 5 sinfo -h -N -n "$(IFS=, && echo "${nodes[*]}")" -p gpu -o %T 2>/dev/null) &&
        [ "$(wc -l <<<"$states")" = "${#nodes[@]}" ] && ! grep -qE '[*]|down|unk|power|reboot' <<<"$states"
}

# What did not come up, from its own words.
complain() {
    say "$1 does not come up; the end of its log:"
    tail -n 15 "$dir/log/$1.out" >&2 || true
}

# bring_up DAEMON...: true when all of them, and those that they need, answer.
bring_up() {
    local name
    for name in "$@"; do
        case $name in
            munged) [ ! -e "$dir/munge.key" ] || start munged && wait_for 10 munge_answers ;;
            slurmctld) start slurmctld && wait_for 20 slurmctld_answers ;;
            *) start "$name" ;;
        esac || { complain "$name"; return 1; }
    done
}

all_running() {
    local name
    for name in "${daemons[@]}"; do
        running "$name" || { [ "$name" = munged ] && [ ! -e "$dir/munge.key" ]; } || return 1
    done
}

living() { all_running && slurmctld_answers && nodes_answer; }

any_running() {
    local name
    for name in "${daemons[@]}"; do
        if running "$name"; then return; fi
    done
    return 1
}

wait_for_nodes() {
    local name
    wait_for "$1" answer_or_died || true
    if nodes_answer; then return; fi
    for name in "${daemons[@]}"; do
        if ! running "$name"; then complain "$name"; return 1; fi
    done
    say "the nodes do not answer: $(timeout 5 sinfo -h -p gpu -o '%N %T' 2>&1 | tr '\n' ' ')"
    return 1
}

answer_or_died() { nodes_answer || ! all_running; }

repair() {
    bring_up "${daemons[@]}" || return 1
    if wait_for 5 nodes_answer; then return; fi
    # Set down by hand, or lost for longer than slurmctld forgives by itself.
    timeout 5 scontrol update "NodeName=$(IFS=, && echo "${nodes[*]}")" State=RESUME 2>/dev/null || true
    wait_for_nodes 20
}

# Somebody may take a port between the look and the start, so others are tried then; and where munge does not run,
# nobody proves who they are: in a folder that is closed to everybody else that is no loss.
build() {
    local auth=munge
    for _ in 1 2 3 4 5; do
        find "$dir" -mindepth 1 -maxdepth 1 ! -name lock -exec rm -rf {} +
        mkdir -p "$dir/run" "$dir/log" "$dir/state"
        touch "$dir/sandbox"
        write_configuration "$auth"
        if bring_up "${daemons[@]}" && wait_for_nodes 20; then return; fi
        munge_answers || auth=none
        end "${nodes[@]}" slurmctld munged
        if [ "$auth" = none ] && [ -e "$dir/munge.key" ]; then continue; fi
        grep -qs 'Address already in use' "$dir"/log/* || return 1
    done
    return 1
}

print_exports() {
    printf 'export SLURM_CONF=%s\n' "$SLURM_CONF"
    if [ "$PATH" != "$path_before" ]; then printf 'export PATH=%q\n' "$PATH"; fi
}

install_slurm
check_folder
lock
if [ "$#" -gt 1 ]; then
    [ -e "$dir/sandbox" ] || { say "there is no sandbox in $dir"; exit 1; }
    bring_up "${@:2}"
elif any_running; then
    living || { say "repairing the SLURM in $dir"; repair; }
else
    say "starting a SLURM in $dir"
    build
fi
print_exports
