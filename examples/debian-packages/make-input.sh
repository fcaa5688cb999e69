#!/usr/bin/env bash
# Writes the package index of this machine's Debian to standard output, as rows for `pegasus import`.
# An index in a file may be named instead: make-input.sh FILE.

set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

read_index() {
    if [[ $# -gt 0 ]]; then
        cat -- "$1"
    elif command -v apt-cache > /dev/null; then
        apt-cache dumpavail
    else
        echo "make-input.sh: there is no apt-cache here; name a file with a package index" >&2
        return 1
    fi
}

read_index "$@" | LC_ALL=C awk -f "$HERE/escape.awk" -f "$HERE/rows.awk"
