#!/usr/bin/env bash
# setup.sh TARGET newest|lowest [PIP OPTION...]
# Installs this checkout's wheel with its extras into the clean environment TARGET; see README.md.
# Exits with 3 and one line on stderr if the Python that this needs cannot be found.
set -euo pipefail

target=$1
which=$2
shift 2
root=$(cd "$(dirname "$0")/../.." && pwd)
extras=${EXTRAS:-cpu,build,video,openvino,cluster,triton,bench}

# Commands of a version manager on PATH may start no Python, so its own Pythons are searched too.
PATH=$PATH$(printf ':%s' "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin)

python_at_hand() {
  local version python
  for version in "$@"; do
    for python in $(type -ap "python$version"); do
      if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "$python"
        return
      fi
    done
  done
  echo "no Python of version $* with ensurepip is on PATH or in pyenv" >&2
  exit 3
}

case $which in
  newest) python=$(python_at_hand 3.15 3.14 3.13 3.12 3.11 3.10) ;;
  lowest) python=$(python_at_hand 3.10) ;;
  *)
    echo "$which is unknown: give newest or lowest" >&2
    exit 2
    ;;
esac

rm -rf "$target"
"$python" -m venv "$target"
pip=("$target/bin/python" -m pip --quiet --disable-pip-version-check)
# From a copy: setuptools builds in a folder beside pyproject.toml, and two of these may run at once.
mkdir "$target/source"
tar -C "$root" --exclude=__pycache__ --exclude=bench/results -cf - \
  LICENSE pyproject.toml docs/package.md bench export ifrnet_model runtime |
  tar -C "$target/source" -xf -
"${pip[@]}" wheel --no-deps --wheel-dir "$target/wheel" "$target/source"
wheel=$(echo "$target"/wheel/*.whl)
if [[ $which == lowest ]]; then
  "${pip[@]}" install --no-deps "$wheel"
  "$target/bin/python" "$root/tools/installed/lowest.py" >"$target/lowest.txt"
  set -- "$@" -c "$target/lowest.txt"
fi
"${pip[@]}" install "$@" "$wheel[$extras]" pytest pytest-xdist hypothesis
"${pip[@]}" check
"$target/bin/python" -VV
"${pip[@]}" freeze | tr '\n' ' ' && echo
