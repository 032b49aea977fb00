#!/usr/bin/env bash
# setup.sh TARGET PYTHON [PIP OPTION...]
# TensorRT's Python API with a parser and a builder that need no GPU, in the folder TARGET, for
# PYTHON; see README.md. TARGET/env.sh sets the environment. Does nothing if they are installed
# already. If they cannot be installed, prints the reason in one line on stderr.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
target=$(cd "$1" && pwd)
python=$2
shift 2

fail() {
  echo "$*" >&2
  exit 1
}

# Everything on which an installation depends: this script, the shim, the folder, the Python.
state=$(cat "$here/setup.sh" "$here/shim.c" <(echo "$target"; "$python" -VV) | sha256sum)
if [[ -f $target/env.sh && $(cat "$target/state" 2>/dev/null) == "$state" ]]; then
  exit 0
fi
rm -rf "$target/site-packages" "$target/lib" "$target/env.sh" "$target/state"

command -v cc >/dev/null || fail "no C compiler (cc) for tools/builder_on_cpu/shim.c"
if ! said=$(timeout 180 "$python" -m pip install --quiet --disable-pip-version-check \
  --retries 1 --timeout 15 --no-deps --only-binary :all: --target "$target/site-packages" "$@" \
  onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0 tensorrt-cu13-bindings==11.4.0.106 2>&1); then
  reason=$(grep -m 1 ^ERROR <<<"$said" || tail -n 1 <<<"$said")
  fail "pip cannot install the packages of tools/builder_on_cpu (${reason:-not in three minutes})"
fi

rtx=$target/site-packages/onnxruntime_ep_nv_tensorrt_rtx
mkdir "$target/lib" "$target/site-packages/tensorrt"
for name in libnvinfer libnvonnxparser libnvinfer_plugin; do
  cc -std=c11 -O1 -Wall -Wextra -shared -fPIC -Wl,-soname,$name.so.11 \
    -o "$target/lib/$name.so.11" "$here/shim.c" -ldl || fail "cc cannot compile $here/shim.c"
done
# The package `tensorrt` itself loads libraries that are not here.
cat >"$target/site-packages/tensorrt/__init__.py" <<'P'
from tensorrt_bindings import *
from tensorrt_bindings import __version__
P

found=("$rtx"/libtensorrt_rtx.so.?.* "$rtx"/libtensorrt_onnxparser_rtx.so.?.*)
cat >"$target/env.sh" <<S
export RTX_LIBRARY="${found[0]}" RTX_PARSER="${found[1]}"
export LD_LIBRARY_PATH="$target/lib:$rtx\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
export PYTHONPATH="$target/site-packages\${PYTHONPATH:+:\$PYTHONPATH}"
S
(. "$target/env.sh" && "$python" -c "import tensorrt") 2>"$target/said" ||
  fail "tensorrt of tools/builder_on_cpu cannot be imported ($(tail -n 1 "$target/said"))"
echo "$state" >"$target/state"
