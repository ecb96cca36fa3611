#!/usr/bin/env bash
# Makes sure that Chromium is there for the browser tests, by apt where it is missing.
#
# Without it the browser tests skip and say so; under CI=true its absence is a failure.
set -uo pipefail

for name in chromium chromium-browser google-chrome; do
  if command -v "$name" >/dev/null; then
    exit 0
  fi
done

give_up() {
  if [ "${CI:-}" = true ]; then
    echo "Chromium is missing and $1; under CI=true the browser tests must run" >&2
    exit 1
  fi
  echo "Chromium is missing and $1; the browser tests will be skipped. To have them: apt-get install chromium" >&2
  exit 0
}

command -v apt-get >/dev/null || give_up "there is no apt-get to install it with"
as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || give_up "installing it needs root or sudo"
  as_root=(sudo)
  [ -t 0 ] || as_root=(sudo -n)  # nobody there to type a password
fi

echo "Installing Chromium for the browser tests" >&2
export DEBIAN_FRONTEND=noninteractive
{
  "${as_root[@]}" apt-get -qq -o DPkg::Lock::Timeout=120 update &&
    "${as_root[@]}" apt-get -qq -y -o DPkg::Lock::Timeout=120 install --no-install-recommends \
      chromium fonts-dejavu-core >/dev/null
} || give_up "apt-get could not install it"
command -v chromium >/dev/null || give_up "the package brought no chromium command"
