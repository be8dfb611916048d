#!/bin/sh
# The report of the real demo run in a real Chromium, as CI does it: nothing may be skipped.
#
#   tests/browser/check.sh          # in an environment with envs/dev.txt
#
# Screenshots are left in build/screenshots.
set -eu
cd "$(dirname "$0")/../.."
if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
    apt-get update -qq
    apt-get install -qq -y chromium chromium-driver fonts-noto-cjk >/dev/null
fi
tests/browser/install.sh
snakemake --cores 1 all
BROWSER_TESTS=required python -m pytest -m browser tests/browser "$@"
