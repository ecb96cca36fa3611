#!/usr/bin/env bash
# Makes .venv, or brings it up to date, for the interpreter named in $1. Does nothing where it is current.
#
# Current means: made at this very path (an editable install names its folder, so a copied tree needs its
# own), by this script from this pyproject.toml and this constraints.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

python="${1:-}"
wanted="$PWD $(cat pyproject.toml constraints.txt scripts/set_up_venv.sh | cksum)"
if [ -x .venv/bin/python ] && [ "$(cat .venv/.stamp 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi

if [ -z "$python" ] || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "popfactory needs Python 3.11 or newer${python:+, which $python is not}; install python3.11, or say where it is: make PYTHON=/path/to/python" >&2
  exit 1
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  package="$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
  echo "$python cannot make virtual environments: it lacks the system package $package" >&2
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "install it and start again: sudo apt-get install $package" >&2
    exit 1
  fi
  echo "installing it" >&2
  apt-get update -qq >&2
  apt-get install -y -qq --no-install-recommends "$package" >&2
fi

made_at="$(cut -d' ' -f1 .venv/.stamp 2>/dev/null || true)"
if ! .venv/bin/python -c '' 2>/dev/null || [ "${made_at:-$PWD}" != "$PWD" ]; then
  echo "Setting up .venv with $python; the first time takes some minutes" >&2
  "$python" -m venv --clear .venv
else
  echo "Bringing .venv up to date" >&2
fi
rm -f .venv/.stamp
.venv/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[cpu,dev]'
# clip-retrieval's own client and web page, to test with: its wheel unpacked, for installed it would want Flask,
# pandas and an older numpy.
client=.venv/clip-retrieval-2.45.0
if [ ! -d "$client" ]; then
  .venv/bin/python -m pip download -qq --disable-pip-version-check --no-deps -d .venv/wheels clip-retrieval==2.45.0
  .venv/bin/python -m zipfile -e .venv/wheels/clip_retrieval-2.45.0-py3-none-any.whl "$client"
fi
echo "$wanted" > .venv/.stamp
