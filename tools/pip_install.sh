#!/bin/sh
# pip_install.sh TEXT PYTHON [PIP OPTION...]
# Prints TEXT, which describes the packages, and installs them: on a terminal with pip's progress
# bars, elsewhere with one line at the beginning and one at the end.
set -eu
text=$(echo "$1" | tr -s '\t\n ' ' ')
python=$2
shift 2
quiet=--quiet
if [ -t 1 ]; then quiet=; fi
echo "installing $text" | fold -s -w 80 | sed 's, *$,,'
started=$(date +%s)
"$python" -m pip install $quiet --disable-pip-version-check "$@"
echo "installed in $(($(date +%s) - started)) s"
