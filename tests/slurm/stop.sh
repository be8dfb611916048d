#!/bin/sh
# Stop what start.sh started, and all of its jobs:
#
#   tests/slurm/stop.sh DIRECTORY
set -eu
state=$(cd "$1" && pwd)
scancel --user="$(id -un)" 2>/dev/null || true
for attempt in $(seq 50); do
  [ -z "$(squeue -h 2>/dev/null)" ] && break
  sleep 0.1
done
# Nodes first, all at once, then what they answer to.
stop() {
  for file in "$@"; do [ ! -s "$file" ] || kill "$(cat "$file")" 2>/dev/null || true; done
  for file in "$@"; do
    process=$(cat "$file" 2>/dev/null) || continue # it takes its file away when it ends
    [ -n "$process" ] || continue
    for attempt in $(seq 100); do
      kill -0 "$process" 2>/dev/null || break
      sleep 0.1
    done
    ! kill -9 "$process" 2>/dev/null || echo "$file: had to be killed" >&2
  done
}
stop "$state"/slurmd.*.pid
stop "$state/slurmctld.pid"
stop "$state/munged.pid"
for name in slurm gres cgroup; do
  [ "$(readlink "/etc/slurm/$name.conf")" = "$state/$name.conf" ] && rm "/etc/slurm/$name.conf"
done
