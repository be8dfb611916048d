#!/bin/sh
# Install Debian's Slurm for the tests in this directory (as root):
#
#   tests/slurm/install.sh && python -m pytest -m slurm
#
# The packages' own attempt to start services fails where there is no systemd; the tests start what
# they need, and stop it again.
set -eu
command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null && exit
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
  slurmctld slurmd slurm-client munge >/dev/null
