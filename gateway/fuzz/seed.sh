#!/usr/bin/env bash
# Turns the images of the golden tests into the first corpus of both targets.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
mkdir -p corpus/request corpus/answer
for image in ../tests/images/*.hex; do
    name="$(basename "${image}" .hex)"
    case "${name}" in
        *_request*) target="corpus/request/${name}" ;;
        *) target="corpus/answer/${name}" ;;
    esac
    cut -c 11-57 "${image}" | tr -d ' \n' | xxd -r -p >"${target}"
done
