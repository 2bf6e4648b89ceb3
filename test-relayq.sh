#!/bin/sh
# test-relayq.sh: verify an installation of relayq, in the order in which things depend on each other:
# the broker, a submit, the workers, a job from end to end. Exits with 1 at the first that fails.
#
#   ./test-relayq.sh [HOST]     HOST: also run a job on this machine of the fleet
#
# RELAYQ names the command, if it isn't on the PATH.

usage() {
    cat <<'TEXT'
test-relayq.sh [HOST]: verify an installation of relayq.

1. the broker answers   2. a job can be submitted   3. workers are online   4. a job runs, end to end
With HOST the job runs there. RELAYQ names the command, if it isn't on the PATH.
TEXT
}

failed() {
    printf 'FAILED: %s\n' "$1" >&2
    [ ! -s "$scratch/said" ] || sed 's/^/    /' "$scratch/said" >&2
    printf '  type: %s\n' "$2" >&2
    exit 1
}

passed() { printf 'ok %s. %s\n' "$1" "$2"; }

# What a command says is shown when it fails.
quietly() { "$@" >"$scratch/said" 2>&1; }

find_relayq() {
    if [ -n "${RELAYQ:-}" ]; then
        command -v "$RELAYQ" >/dev/null 2>&1 || failed "$RELAYQ is no command" "RELAYQ=PATH $0"
        return
    fi
    for candidate in relayq "$HOME/.local/bin/relayq"; do
        if command -v "$candidate" >/dev/null 2>&1; then
            RELAYQ=$candidate
            return
        fi
    done
    failed "relayq is not installed here" "sh install-worker.sh --help"
}

test_broker() {
    quietly "$RELAYQ" broker status || failed "the broker doesn't answer" "$RELAYQ doctor"
    passed 1 "broker: $(head -n 1 "$scratch/said")"
}

# To be taken in an hour, and cancelled before.
test_submit() {
    set -- submit --name test-relayq --in-time 1h -- true
    "$RELAYQ" "$@" >"$scratch/id" 2>"$scratch/said" || failed "a job isn't taken" "$RELAYQ doctor"
    id=$(tail -n 1 "$scratch/id")
    quietly "$RELAYQ" cancel "$id" || failed "job $id can't be cancelled" "$RELAYQ show $id"
    passed 2 "submit: $id was queued, and cancelled"
}

test_workers() {
    quietly "$RELAYQ" hosts ls --format '{{.name}} {{.state}}' || failed "no hosts" "$RELAYQ doctor"
    online=$(awk '$2 != "offline" { printf "%s%s", separator, $1; separator = ", " }' "$scratch/said")
    [ -n "$online" ] || failed "no worker is online" "$RELAYQ hosts"
    passed 3 "workers online: $online"
}

test_end_to_end() {
    word="relayq-$$"
    set -- echo "$word"
    [ -z "$host" ] || set -- --on "$host" -- "$@"
    [ -n "$host" ] || set -- -- "$@"
    answer=$("$RELAYQ" run --timeout 60s "$@" 2>"$scratch/said") || failed "the job failed" "$RELAYQ why last"
    [ "$answer" = "$word" ] || failed "the job said '$answer' and not '$word'" "$RELAYQ show last"
    passed 4 "end to end: a job ran, and its output came back"
}

main() {
    set -eu
    case ${1:-} in -h | --help) usage && return ;; esac
    host=${1:-}
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    find_relayq
    test_broker
    test_submit
    test_workers
    test_end_to_end
    printf 'All is well.\n'
}

{
    main "$@"
}
