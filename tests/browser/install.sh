#!/bin/sh
# Fetch axe-core, with which the browser tests check accessibility, into build/axe or the
# directory that is given:
#
#   tests/browser/install.sh && pytest -m browser
#
# It needs npm. Chromium and its driver are Debian's: apt-get install chromium chromium-driver
set -eu
place=${1:-$(dirname "$0")/../../build/axe}
version=4.14.1
mkdir -p "$place"
npm install --silent --no-save --no-audit --no-fund --prefix "$place" "axe-core@$version"
cp "$place/node_modules/axe-core/axe.min.js" "$place/axe.min.js"
echo "$place/axe.min.js"
