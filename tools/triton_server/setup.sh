#!/usr/bin/env bash
# setup.sh TARGET PYTHON [PIP OPTION...]
# A Triton Inference Server with its Python backend for PYTHON, in the folder TARGET; see README.md.
# TARGET/env.sh sets the environment. Does nothing if it is installed already. If it cannot be
# installed, prints the reason in one line on stderr.
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

# Everything on which an installation depends: this script, the folder, the Python.
state=$(cat "$here/setup.sh" <(echo "$target"; "$python" -VV) | sha256sum)
if [[ -f $target/env.sh && $(cat "$target/state" 2>/dev/null) == "$state" ]]; then
  exit 0
fi
rm -rf "$target/site-packages" "$target/backends" "$target/env.sh" "$target/state"

# Without its dependencies: the server needs none of them, and they include an old NumPy.
if ! said=$(timeout 180 "$python" -m pip install --quiet --disable-pip-version-check \
  --retries 1 --timeout 15 --no-deps --only-binary :all: --target "$target/site-packages" "$@" \
  nvidia-pytriton==0.7.0 2>&1); then
  reason=$(grep -m 1 ^ERROR <<<"$said" || tail -n 1 <<<"$said")
  fail "pip cannot install the package of tools/triton_server (${reason:-not in three minutes})"
fi

server=$target/site-packages/pytriton/tritonserver
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
stub=$server/python_backend_stubs/$version/triton_python_backend_stub
[[ -f $stub ]] || fail "the package of tools/triton_server has no Python backend for $version"
mkdir -p "$target/backends"
cp -r "$server/backends/python" "$target/backends/"
cp "$stub" "$target/backends/python/"
chmod +x "$server/bin/tritonserver" "$target/backends/python/triton_python_backend_stub"

cat >"$target/env.sh" <<S
export TRITON_SERVER="$server/bin/tritonserver" TRITON_BACKENDS="$target/backends"
export TRITON_LIBRARIES="$target/site-packages/nvidia_pytriton.libs"
S
if ! said=$(. "$target/env.sh" && LD_LIBRARY_PATH=$TRITON_LIBRARIES "$TRITON_SERVER" --help 2>&1); then
  # It ends with 1 after --help, too.
  grep -q model-repository <<<"$said" ||
    fail "the server of tools/triton_server does not run ($(tail -n 1 <<<"$said"))"
fi
echo "$state" >"$target/state"
