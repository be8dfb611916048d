#!/bin/sh
# Fetch axe-core, with which the browser tests check accessibility, into a directory of its own:
#
#   tests/browser/install.sh .venv/axe && AXE_CORE=.venv/axe/axe.min.js pytest -m browser
#
# It needs npm. Chromium and its driver are Debian's: apt-get install chromium chromium-driver
set -eu
place=${1:?give a directory}
version=4.14.1
mkdir -p "$place"
npm install --silent --no-save --no-audit --no-fund --prefix "$place" "axe-core@$version"
cp "$place/node_modules/axe-core/axe.min.js" "$place/axe.min.js"
echo "$place/axe.min.js"
