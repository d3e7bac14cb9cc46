#!/bin/sh
# venv.sh DIRECTORY [PYTHON]: make a virtual environment with a Python that pbmon runs on.
# Of those found the first of a tested version wins; a newer one is taken if there is no other.
set -eu
venv=$1
wanted=${2:-python3 python3.13 python3.12 python3.11 python3.10 python}
newer=
python=
for candidate in $wanted; do
    # Prints "3.11"; a pyenv shim without its version, or no Python at all, prints nothing.
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    case $version in
        3.1[0-3]) python=$candidate && break ;;
        2.* | 3.[0-9]) ;;
        *) newer=${newer:-$candidate} ;;
    esac
done
python=${python:-$newer}
if [ -z "$python" ]; then
    echo "pbmon needs Python 3.10 or newer, and none of these is one: $wanted." \
        "Install it, or name it: make PYTHON=/path/to/python ..." >&2
    exit 1
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "$python ($version) can't make virtual environments:" \
        "install its venv module (Debian, Ubuntu: apt-get install python$version-venv)," \
        "or name another Python: make PYTHON=/path/to/python ..." >&2
    exit 1
fi
trap 'rm -rf "$venv"; exit 1' HUP INT TERM  # half a venv would be taken for a whole one
echo "making $venv with Python $version"
"$python" -m venv --clear "$venv" || {
    rm -rf "$venv"
    echo "$python -m venv failed; name another Python: make PYTHON=/path/to/python ..." >&2
    exit 1
}
