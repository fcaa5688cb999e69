#!/usr/bin/env bash
# The front door: builds Pegasus, runs a cluster on this machine, and is the gate.
#
#   ./run.sh help      lists the commands.
#
# Nothing is kept outside of this folder, except system packages (installed only if they are missing) and what
# Cargo keeps under ${HOME}. Binaries are looked for where Cargo puts them: ${CARGO_TARGET_DIR:-target}/release.

set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
TARGET="${CARGO_TARGET_DIR:-$ROOT/target}"
BINARIES="$TARGET/release"
ONEBOX="$ROOT/onebox"
RUST_VERSION_MIN="1.93"
SIMULATOR_SECONDS=60

# Every release command of this script selects the same packages: all of them. Cargo unifies the features of a
# shared dependency over the packages it was asked for, so `-p one-package` would build some dependencies with
# other features, RocksDB among them, which takes minutes. With one selection RocksDB is compiled once.
RELEASE=(--locked --release --workspace)

usage() {
    cat <<'TEXT'
usage: ./run.sh COMMAND [OPTIONS]

  build            install what is missing on this machine, then build everything (release)
  start_onebox     build, then start a cluster on this machine: one meta server and three storage nodes
                     --nodes N   storage nodes (3)
                     --cores N   executors per node (1)
                     --dir D     where the cluster lives (./onebox)
  stop_onebox      stop it gracefully; the data stays          [--dir D]
  list_onebox      one line per process: name, pid, addresses  [--dir D]
  clear_onebox     stop it and delete its data                 [--dir D]
  shell            talk to the cluster; without arguments an interactive prompt, with them one command:
                     ./run.sh shell -t temp set user:1 name Ada
  bench            measure the onebox with pegasus-perf run; options go through (see ./run.sh bench --help)
  test             the whole gate: format, lints, tests, documents, rules, simulator; edits nothing
  fix              what a machine can mend by itself: format and clippy's suggestions
  help             this text
TEXT
}

main() {
    local command="${1:-help}"
    [[ $# -gt 0 ]] && shift
    case "$command" in
        build) build ;;
        start_onebox) start_onebox "$@" ;;
        stop_onebox) stop_onebox "$@" ;;
        list_onebox) list_onebox "$@" ;;
        clear_onebox) clear_onebox "$@" ;;
        shell) open_shell "$@" ;;
        bench) bench "$@" ;;
        test) run_gate ;;
        fix) fix ;;
        help | --help | -h) usage ;;
        *)
            echo "run.sh: unknown command: $command" >&2
            usage >&2
            exit 2
            ;;
    esac
}

# ---- Building

build() {
    prepare_machine
    run_in_root cargo build "${RELEASE[@]}"
}

# Checks what is there and installs only what is missing, so that nothing needs to be remembered between runs.
prepare_machine() {
    local missing=()
    command -v c++ > /dev/null || missing+=(g++)
    command -v make > /dev/null || missing+=(make)
    command -v git > /dev/null || missing+=(git)
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || missing+=(ca-certificates)
    has_libclang || missing+=(libclang-dev)
    if [[ ${#missing[@]} -gt 0 ]]; then
        install_packages "${missing[@]}"
    fi
    require_rust
}

# bindgen loads libclang when RocksDB is built. libclang-cpp, which LLVM brings along, is another library.
has_libclang() {
    [[ -n "${LIBCLANG_PATH:-}" ]] && return 0
    local folder
    for folder in /usr/lib/llvm-*/lib /usr/lib /usr/lib64 /usr/lib/*-linux-gnu; do
        compgen -G "$folder/libclang.so*" > /dev/null && return 0
        compgen -G "$folder/libclang-[0-9]*.so*" > /dev/null && return 0
    done
    return 1
}

install_packages() {
    local as_root=()
    if [[ "$(id -u)" -ne 0 ]]; then
        if command -v sudo > /dev/null && sudo -n true 2> /dev/null; then
            as_root=(sudo -n)
        else
            stop "these system packages are missing: $*" \
                "install them as root, then try again:  apt-get install $*"
        fi
    fi
    command -v apt-get > /dev/null || stop "these packages are missing and there is no apt-get here: $*"
    echo "run.sh: installing system packages: $*"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

require_rust() {
    if ! command -v cargo > /dev/null; then
        stop "the Rust toolchain is missing (cargo $RUST_VERSION_MIN or later)" \
            "install it from https://rustup.rs, then open a new terminal"
    fi
    local version
    version="$(cd "$ROOT" && rustc --version | cut -d' ' -f2)"
    if [[ "$(printf '%s\n' "$RUST_VERSION_MIN" "$version" | sort -V | head -n 1)" != "$RUST_VERSION_MIN" ]]; then
        stop "rustc $version is too old, $RUST_VERSION_MIN or later is needed:  rustup update stable"
    fi
}

require_rust_components() {
    local component missing=()
    for component in clippy fmt; do
        cargo "$component" --version > /dev/null 2>&1 || missing+=("$component")
    done
    if [[ ${#missing[@]} -gt 0 ]]; then
        stop "cargo lacks: ${missing[*]}" "add them with:  rustup component add clippy rustfmt"
    fi
}

# ---- A cluster on this machine

start_onebox() {
    build
    raise_memlock
    onebox start "$@"
}

stop_onebox() {
    need_binary pegasus
    onebox stop "$@"
}

list_onebox() {
    need_binary pegasus
    onebox list "$@"
}

clear_onebox() {
    need_binary pegasus
    onebox clear "$@"
}

# onebox VERB OPTIONS...: on the onebox of this folder, unless --dir names another one.
onebox() {
    local arguments=("$@")
    has_option --dir "$@" || arguments+=(--dir "$ONEBOX")
    "$BINARIES/pegasus" onebox "${arguments[@]}"
}

open_shell() {
    need_binary pegasus
    cluster_defaults
    exec "$BINARIES/pegasus" "$@"
}

bench() {
    need_binary pegasus-perf
    cluster_defaults
    local arguments=("$@")
    if ! has_option --onebox "$@" && ! has_option --server-pids "$@" && [[ -f "$ONEBOX/onebox.toml" ]]; then
        arguments+=(--onebox "$ONEBOX")
    fi
    exec "$BINARIES/pegasus-perf" run "${arguments[@]}"
}

# Where shell and bench find the cluster, unless the environment or their options say otherwise.
cluster_defaults() {
    export PEGASUS_META="${PEGASUS_META:-127.0.0.1:34601}"
    export PEGASUS_TLS="${PEGASUS_TLS:-$ONEBOX/tls}"
}

need_binary() {
    [[ -x "$BINARIES/$1" ]] || build
}

# io_uring registers buffers, which count as locked memory. Each node checks its own limit when it starts; here the
# soft limit is only raised to what this user may have anyway.
raise_memlock() {
    ulimit -l unlimited 2> /dev/null || ulimit -S -l "$(ulimit -H -l)" 2> /dev/null || true
}

# ---- The gate

run_gate() {
    prepare_machine
    require_rust_components
    raise_memlock
    local started=$SECONDS
    STEP="preparing"
    trap name_failed_step EXIT
    step "format" cargo fmt --all --check
    step "lints" cargo clippy "${RELEASE[@]}" --all-targets -- -D warnings
    step "pure packages, debug assertions on" test_pure_packages
    step "build" cargo build "${RELEASE[@]}"
    step "tests" cargo test "${RELEASE[@]}"
    step "documents" env RUSTDOCFLAGS="-D warnings" cargo doc "${RELEASE[@]}" --no-deps --document-private-items
    step "rules" cargo test "${RELEASE[@]}" --test tidy
    step "simulator, $SIMULATOR_SECONDS s of seeds" \
        cargo run --locked --package pegasus-sim -- --seeds 1000000 --seconds "$SIMULATOR_SECONDS"
    echo
    echo "== all passed in $((SECONDS - started)) s"
}

# Debug assertions hold the invariants of the protocol, so its packages are also tested in the dev profile. They
# need no RocksDB and few crates; everything else is tested in the release profile alone.
test_pure_packages() {
    cargo test --locked --package pegasus-wire --package pegasus-replication --package pegasus-sim \
        --package pegasus-gateway
    cargo test --locked --package pegasus-meta --no-default-features
}

# Runs one step. Not from within a condition: there bash would go on after a failed command.
step() {
    STEP="$1"
    local before=$SECONDS
    shift
    echo
    echo "== $STEP"
    run_in_root "$@"
    echo "== $STEP: $((SECONDS - before)) s"
}

name_failed_step() {
    local status=$?
    [[ $status -eq 0 ]] || echo "== failed: $STEP" >&2
    exit "$status"
}

fix() {
    require_rust
    require_rust_components
    run_in_root cargo clippy "${RELEASE[@]}" --all-targets --fix --allow-dirty --allow-staged
    run_in_root cargo fmt --all
}

# ---- Small helpers

run_in_root() {
    (
        cd "$ROOT"
        "$@"
    )
}

# has_option NAME ARGUMENTS...: true if an argument is NAME or NAME=value.
has_option() {
    local name="$1" argument
    shift
    for argument in "$@"; do
        [[ "$argument" == "$name" || "$argument" == "$name="* ]] && return 0
    done
    return 1
}

stop() {
    printf 'run.sh: %s\n' "$@" >&2
    exit 1
}

main "$@"
