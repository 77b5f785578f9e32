#!/bin/sh
# ./install.sh lab|test|teach|lock: put that set of packages into .venv, unless it is there already. `make` calls it.
#
# A stamp per set holds the checksum of what was installed, and is written last. While pip works there is
# .venv/unfinished; a .venv with that file, or without any stamp, was interrupted and is made anew.
set -eu
set=$1

fail() {
    echo "$1" >&2
    exit 1
}

works() {
    .venv/bin/python -c "" 2>/dev/null
}

finished() {
    [ ! -e .venv/unfinished ] && ls .venv/installed-* >/dev/null 2>&1
}

# The first Python that is new enough: on macOS python3 may be an old one.
find_python() {
    for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return
    done
    found=$("${PYTHON:-python3}" --version 2>/dev/null) || found="No Python"
    fail "$found was found, but 3.11 or newer is needed: install one, or name it, as in make $set PYTHON=python3.12"
}

full_disk() {
    fail "$(free_mb) MB of disk are free, but up to 8000 MB are needed: free some, then call make $set again."
}

free_mb() {
    df -Pk . | awk 'NR == 2 { print int($4 / 1024) }'
}

# Run a command; if it fails, say why in one sentence, after its own words where those are needed.
attempt() {
    exec 3>&1
    errors=$("$@" 2>&1 >&3) && return
    rm -rf .venv/tmp .venv/unfinished
    finished || rm -rf .venv
    case $errors in
    *"No space left"*) full_disk ;;
    *"Retrying (Retry"*) fail "No package can be fetched without the network: connect, then call make $set again." ;;
    *) fail "$errors
Installing into .venv failed for the reason above: mend it, then call make $set again." ;;
    esac
}

content=$({ pwd; cat requirements.lock pyproject.toml; } | cksum)
if finished && works && [ "$(cat ".venv/installed-$set" 2>/dev/null)" = "$content" ]; then
    exit 0
fi

if ! finished || ! works; then
    find_python
    "$python" -c "import venv, ensurepip" 2>/dev/null ||
        fail "$("$python" --version) has no venv module, but the packages need one to stay apart from others: \
install it (on Debian and Ubuntu: apt install python3-venv), then call make $set again."
    rm -rf .venv
    [ "$(free_mb)" -ge 1000 ] || full_disk
    attempt "$python" -m venv .venv
fi

echo "Installing into .venv; the first time takes some minutes and up to 6 GB (torch)."
touch .venv/unfinished
mkdir -p .venv/tmp # the system's own folder for temporary files is often too small for torch
# shellcheck disable=SC2086 # PIP_ARGS holds several words
TMPDIR="$PWD/.venv/tmp" PIP_DISABLE_PIP_VERSION_CHECK=1 attempt .venv/bin/python -m pip install \
    --constraint requirements.lock ${PIP_ARGS:-} --editable ".[$set]"
rm -rf .venv/tmp .venv/unfinished
for each in lab "$set"; do # every set contains the lab's
    echo "$content" >".venv/installed-$each"
done
