#!/bin/sh
# The report of the real demo run in a real Chromium, as CI does it; nothing may be skipped.
#
#   tests/browser/check.sh          # in an environment with envs/dev.txt
#
# It needs chromium, chromedriver and npm. Screenshots are left in build/screenshots.
set -eu
cd "$(dirname "$0")/../.."
tests/browser/install.sh
snakemake --cores 1 all
test -s results/report.html
MINDTUNE_NOTHING_SKIPPED=1 python -m pytest -m browser tests/browser "$@"
