#!/bin/sh
# Start munged, slurmctld and six slurmd on loopback, as root, without systemd:
#
#   tests/slurm/start.sh DIRECTORY    # new; gets all state and logs
#
# The configuration is linked into /etc/slurm: the executor takes SLURM_CONF from the environment
# of its jobs, so that no other place is found there. A Slurm that is configured there is left
# alone, and this one does not start.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
state=$1
for name in slurm gres cgroup; do
  if [ -e "/etc/slurm/$name.conf" ]; then
    echo "/etc/slurm/$name.conf is there already: this machine has a Slurm, which is left alone" >&2
    exit 1
  fi
done
mkdir "$state"
state=$(cd "$state" && pwd)
host=$(hostname -s)
chmod 755 "$state"
mkdir "$state/slurmctld" "$state/munge"
chmod 700 "$state/munge"
( umask 077 && dd if=/dev/urandom of="$state/munge/key" bs=1024 count=1 status=none )
for name in slurm gres; do
  sed -e "s|@STATE@|$state|g" -e "s|@HOST@|$host|g" "$here/$name.conf.in" > "$state/$name.conf"
done
echo CgroupPlugin=cgroup/v1 > "$state/cgroup.conf"
mkdir -p /etc/slurm
for name in slurm gres cgroup; do ln -s "$state/$name.conf" "/etc/slurm/$name.conf"; done

munged --force --key-file="$state/munge/key" --seed-file="$state/munge/seed" --num-threads=2 \
  --socket="$state/munge.socket" --pid-file="$state/munged.pid" --log-file="$state/munged.log"
slurmctld -c
for node in npu1 npu2 npu3 npu4 npu5 cpu1; do slurmd -c -N "$node"; done
for attempt in $(seq 100); do
  [ "$(sinfo -h -N -o %T | sort -u)" = idle ] && exit
  sleep 0.1
done
echo "Slurm did not come up; $(tail -n 3 "$state"/*.log)" >&2
exit 1
