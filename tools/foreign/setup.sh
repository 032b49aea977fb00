#!/usr/bin/env bash
# setup.sh TARGET PYTHON [PIP OPTION...]
# Installs ONNX Runtime for Node.js and for the web, and OpenCV, into the folder TARGET.
# Exits with 3 and one line on stderr where they cannot be had.
set -euo pipefail

target=$1
python=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)

for tool in node npm; do
  command -v "$tool" >/dev/null || { echo "$tool is not installed" >&2; exit 3; }
done
major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
if [[ $major -lt 18 ]]; then
  echo "Node.js is $(node --version), and 18 is needed" >&2
  exit 3
fi

mkdir -p "$target"
cp "$here/package.json" "$here/run.mjs" "$here/run_opencv.py" "$target"
if ! cmp -s "$here/package.json" "$target/installed.json"; then
  # Without scripts: that of onnxruntime-node downloads libraries for CUDA.
  if ! npm install --prefix "$target" --ignore-scripts --no-audit --no-fund --no-package-lock \
    --loglevel=error >"$target/npm.log" 2>&1; then
    echo "npm cannot install onnxruntime-node and onnxruntime-web ($target/npm.log)" >&2
    exit 3
  fi
  # Its NumPy is that of the environment of the tests.
  if ! "$python" -m pip install --quiet --disable-pip-version-check "$@" --no-deps --upgrade \
    --target "$target/python" "opencv-python-headless==5.0.0.93" >"$target/pip.log" 2>&1; then
    echo "pip cannot install opencv-python-headless ($target/pip.log)" >&2
    exit 3
  fi
  cp "$here/package.json" "$target/installed.json"
fi
