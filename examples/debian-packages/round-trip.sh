#!/usr/bin/env bash
# Imports the package index of this machine's Debian into a running cluster, exports it again, and compares.
#
#   ./run.sh start_onebox
#   examples/debian-packages/round-trip.sh [--table NAME] [--index FILE] [--keep DIRECTORY]
#
# --table NAME       table to use, made if it is missing (debian_packages). It must hold nothing else.
# --index FILE       a package index in a file, in place of this machine's
# --keep DIRECTORY   where to leave input, export and sorted files; else they are deleted

set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
ROOT="$(cd "$HERE/../.." && pwd)"
PEGASUS="${PEGASUS:-${CARGO_TARGET_DIR:-$ROOT/target}/release/pegasus}"
export PEGASUS_META="${PEGASUS_META:-127.0.0.1:34601}"
export PEGASUS_TLS="${PEGASUS_TLS:-$ROOT/onebox/tls}"

main() {
    read_options "$@"
    [[ -x "$PEGASUS" ]] || stop "there is no $PEGASUS; ./run.sh build makes it, or set PEGASUS to where it is"
    local input="$WORK/input.tsv" export="$WORK/export.tsv"

    "$HERE/make-input.sh" "${INDEX[@]}" > "$input"
    local rows
    rows="$(wc -l < "$input")"
    [[ "$rows" -gt 0 ]] || stop "the package index is empty; apt-get update fetches one"
    "$PEGASUS" table create "$TABLE" --partitions 8 --if-not-exists

    "$PEGASUS" --table "$TABLE" import --no-progress-file "$input"
    "$PEGASUS" --table "$TABLE" export "$export"
    compare "$input" "$export" "$rows"
}

read_options() {
    TABLE="debian_packages"
    INDEX=()
    WORK=""
    while [[ $# -gt 0 ]]; do
        [[ $# -gt 1 ]] || stop "usage: round-trip.sh [--table NAME] [--index FILE] [--keep DIRECTORY]"
        case "$1" in
            --table) TABLE="$2" ;;
            --index) INDEX=("$2") ;;
            --keep) WORK="$2" ;;
            *) stop "unknown option: $1" ;;
        esac
        shift 2
    done
    if [[ -n "$WORK" ]]; then
        mkdir -p "$WORK"
    else
        WORK="$(mktemp -d)"
        trap 'rm -rf -- "$WORK"' EXIT
    fi
}

# The export shows letters of other scripts as they are; ascii.awk writes them as the input has them.
compare() {
    local input="$1" export="$2" rows="$3" differences="$WORK/difference.txt"
    LC_ALL=C sort -o "$input.sorted" "$input"
    LC_ALL=C awk -f "$HERE/escape.awk" -f "$HERE/ascii.awk" "$export" | LC_ALL=C sort -o "$export.sorted"
    if ! diff "$input.sorted" "$export.sorted" > "$differences"; then
        head -n 20 "$differences" >&2
        stop "input and export differ in $(grep -c '^[<>]' "$differences") lines, see above for the first"
    fi
    echo "difference of the sorted files: empty ($rows rows, $(wc -c < "$input") bytes)"
}

stop() {
    printf 'round-trip.sh: %s\n' "$@" >&2
    exit 1
}

main "$@"
