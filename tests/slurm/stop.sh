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
for file in "$state"/slurmd.*.pid "$state/slurmctld.pid" "$state/munged.pid"; do
  [ -s "$file" ] || continue
  process=$(cat "$file")
  kill "$process" 2>/dev/null || continue
  for attempt in $(seq 100); do
    kill -0 "$process" 2>/dev/null || break
    sleep 0.1
  done
  ! kill -9 "$process" 2>/dev/null || echo "$file: had to be killed" >&2
done
for name in slurm gres cgroup; do
  [ "$(readlink "/etc/slurm/$name.conf")" = "$state/$name.conf" ] && rm "/etc/slurm/$name.conf"
done
