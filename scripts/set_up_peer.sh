#!/usr/bin/env bash
# Makes .venv-peer with clip-retrieval 2.45, for the interpreter named in $1 (3.10 to 3.12). PEER_PYTHON names one
# that has it already; then nothing is done.
#
# Three pins are needed. setuptools 82 dropped pkg_resources, without which clip-retrieval does not import. torchvision
# would bring a torch of its own. And open_clip before 3 can't read a model from a local folder, as the demo model is.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -n "${PEER_PYTHON:-}" ]; then
  exit 0
fi
wanted="$PWD $(cksum <"scripts/set_up_peer.sh")"
if [ -x .venv-peer/bin/python ] && [ "$(cat .venv-peer/.stamp 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi
echo "Setting up .venv-peer with clip-retrieval 2.45; this takes some minutes" >&2
rm -rf .venv-peer
"$1" -m venv .venv-peer
pip=(.venv-peer/bin/python -m pip install --quiet --disable-pip-version-check)
"${pip[@]}" torch==2.13.0
"${pip[@]}" --no-deps torchvision==0.28.0
"${pip[@]}" clip-retrieval==2.45.0 torch==2.13.0 torchvision==0.28.0 "setuptools<81" faiss-cpu==1.13.2
"${pip[@]}" --no-deps open_clip_torch==3.3.0
echo "$wanted" >.venv-peer/.stamp
