#!/usr/bin/env bash
# Takes down what slurm-up.sh brought up in DIR: cancels its jobs, ends its daemons, removes the folder.
# jobs/slurm-down.sh [DIR]
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/slurm-sandbox.sh"
use_folder "${1:-}"
if [ ! -e "$dir" ]; then exit; fi
if [ ! -e "$dir/sandbox" ]; then say "$dir is no folder that slurm-up.sh made; left as it is"; exit 1; fi
lock

# Processes of jobs whose slurmd or slurmstepd was killed are nobody's; their environment says whose they were.
# A slurmstepd has overwritten its own, but holds files in the folder.
job_processes() {
    local process
    {
        grep -lzFx "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ | xargs -r grep -lzE '^SLURM_JOB_ID=' | cut -d / -f 3
        for process in $(grep -lx slurmstepd /proc/[0-9]*/comm | cut -d / -f 3); do
            if find "/proc/$process/fd" -lname "$dir/*" | grep -q .; then printf '%s\n' "$process"; fi
        done
    } 2>/dev/null || true
}

no_job_processes() { [ -z "$(job_processes)" ]; }

# Those that have not gone at SLURM's word.
end_job_processes() {
    local found
    found=$(job_processes)
    if [ -z "$found" ]; then return; fi
    # shellcheck disable=SC2086 # one word a process
    kill -KILL $found 2>/dev/null || true
    return 1
}

if running slurmctld && ! no_job_processes; then
    timeout 10 squeue -h -o %A 2>/dev/null | timeout 10 xargs -r scancel 2>/dev/null || true
    wait_for 4 no_job_processes || true
fi
end "${nodes[@]}" slurmctld
wait_for 5 end_job_processes || say "processes of jobs do not end: $(job_processes | tr '\n' ' ')"
end munged
rm -rf "$dir"
