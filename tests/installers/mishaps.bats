# What the installers do when something is wrong, or somebody ends them half-way.

setup() {
    load stubs
    machine
    touch "$BATS_TEST_TMPDIR/relayq-9-py3-none-any.whl"
    WHEEL=$BATS_TEST_TMPDIR/relayq-9-py3-none-any.whl
    CONFIG=$HOME/.relayq/config.yml
}

# As has_python, with a pip that fails as if there were no network.
has_no_network() {
    stub python3 'case $2 in
    venv) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    pip) echo "no network" >&2 && exit 1 ;;
    esac'
}

@test "a dry run names the packages that apt would install" {
    stub apt-get ''
    pipe install-broker.sh --dry-run --source "$WHEEL"
    [ "$status" -eq 0 ]
    [[ $output == *"install -y --no-install-recommends python3 python3-venv"* ]]
    [[ $output == *"install -y --no-install-recommends redis-server"* ]]
    ! called apt-get
}

@test "a dry run of an uninstallation doesn't say that it is done" {
    has_python
    pipe install-worker.sh --source "$WHEEL"
    pipe install-worker.sh --uninstall --dry-run
    [ "$status" -eq 0 ]
    [[ $output == *"Nothing was done"* ]]
    [[ $output != *"is uninstalled"* ]]
    [ -e "$HOME/.local/share/relayq/venv" ]
    has_uv
    pipe install-worker.sh --source "$WHEEL"
    pipe install-worker.sh --uninstall --dry-run
    [[ $output == *"tool uninstall --quiet relayq"* ]]
}

@test "the password of a Redis is no argument of a command, and not shown" {
    has_python
    pipe install-broker.sh --dry-run --source "$WHEEL" --use redis://:secret@10.0.0.2:6379/0
    [ "$status" -eq 0 ]
    [[ $output != *secret* ]]
}

@test "what is no URL of a Redis, no number and no name is refused before anything is done" {
    has_python
    pipe install-broker.sh --source "$WHEEL" --use 10.0.0.2
    [ "$status" -eq 1 ]
    [[ $output == *"--use needs a URL"*"type: "* ]]
    pipe install-broker.sh --source "$WHEEL" --port redis
    [ "$status" -eq 1 ]
    for words in "--slots many" "--slots 0" "--name Big_Mac"; do
        pipe install-worker.sh --source "$WHEEL" $words
        [ "$status" -eq 1 ]
        [[ $output == *"not: ${words#* }"*"type: "* ]]
    done
    ! called "-m venv"
    [ -z "$(ls -A "$HOME")" ]
}

@test "another broker in the configuration is no success" {
    has_python
    mkdir -p "$HOME/.relayq"
    printf 'broker:\n  url: "redis://10.0.0.9/0"\n' >"$CONFIG"
    pipe install-broker.sh --source "$WHEEL" --use redis://10.0.0.2/0
    [ "$status" -eq 1 ]
    [[ $output == *"another broker"*"type: "*"$CONFIG"* ]]
    pipe install-broker.sh --source "$WHEEL" --use redis://10.0.0.9/0
    [ "$status" -eq 0 ]
}

@test "a last line of the configuration without an end stays a line of its own" {
    has_python
    mkdir -p "$HOME/.relayq"
    printf 'broker:\n  host: vm' >"$CONFIG"
    pipe install-worker.sh --source "$WHEEL" --slots 2
    [ "$status" -eq 0 ]
    [ "$(cat "$CONFIG")" = $'broker:\n  host: vm\nworker:\n  max_concurrent: 2' ]
}

@test "who may not use sudo learns what root has to type" {
    has_python
    stub apt-get ''
    stub sudo 'echo "sudo: no" >&2; exit 1'
    pipe install-broker.sh --source "$WHEEL"
    [ "$status" -eq 1 ]
    [[ $output == *"sudo: no"*"without root"*"type: apt-get install redis-server"* ]]
    pipe install-worker.sh --source "$WHEEL" rq1.abc
    [ "$status" -eq 1 ]
    [[ $output == *"type: loginctl enable-linger fred"* ]]
}

@test "whom the machine lets linger by themselves needs no sudo" {
    has_python
    stub loginctl ''
    pipe install-worker.sh --source "$WHEEL" rq1.abc
    [ "$status" -eq 0 ]
    called "loginctl --no-ask-password enable-linger fred"
    ! called sudo
}

@test "lingering is written down before it is switched on, and only once there is something to run" {
    has_no_network
    pipe install-worker.sh --source "$WHEEL"
    [ "$status" -ne 0 ]
    ! called enable-linger
    has_python
    stub loginctl 'grep -q "\"lingers\": true" "$HOME/.relayq/installed.json"'
    pipe install-worker.sh --source "$WHEEL" rq1.abc
    [ "$status" -eq 0 ]
    pipe install-worker.sh --source "$WHEEL" --client
    grep -q '"lingers": true' "$HOME/.relayq/installed.json"
}

@test "what ends it early is told, with where and what now" {
    has_no_network
    pipe install-worker.sh --source "$WHEEL"
    [ "$status" -eq 1 ]
    [[ $output == *"no network"*"ended early, at: relayq, for fred"*"type: the same line again"* ]]
}

@test "a disk that is too full is told as that, before anything is on it" {
    has_python
    stub df 'printf "Filesystem 1024-blocks Used Available\n/dev/sda1 9 9 9216\n"'
    pipe install-worker.sh --source "$WHEEL"
    [ "$status" -eq 1 ]
    [[ $output == *"only 9 MB are free"*"type: df -h"* ]]
    [ -z "$(ls -A "$HOME")" ]
}

@test "an installation that was cut off is begun anew" {
    has_no_network
    pipe install-worker.sh --source "$WHEEL"
    has_python
    : >"$HOME/.local/share/relayq/venv/bin/half"
    : >"$CALLS"
    pipe install-worker.sh --source "$WHEEL"
    [ "$status" -eq 0 ]
    called "-m venv $HOME/.local/share/relayq/venv --clear"
}

@test "an end in the middle of apt leaves no service masked" {
    has_python
    stub apt-get 'case $* in *" install "*) kill -TERM "$PPID" ;; esac'
    pipe install-broker.sh --source "$WHEEL"
    [ "$status" -eq 143 ]
    called "systemctl --quiet mask redis-server.service"
    called "systemctl --quiet unmask redis-server.service"
    [[ $output == *"ended early, at: Redis"* ]]
}

@test "an uninstallation that can't take the services away takes nothing away" {
    has_python
    pipe install-worker.sh --source "$WHEEL"
    cat >"$HOME/.local/share/relayq/venv/bin/relayq" <<'BROKEN'
#!/bin/sh
exit 1
BROKEN
    pipe install-worker.sh --uninstall --purge
    [ "$status" -eq 1 ]
    [[ $output == *"doesn't start"*"type: "* ]]
    cat >"$HOME/.local/share/relayq/venv/bin/relayq" <<'REFUSES'
#!/bin/sh
[ "$1" != worker ]
REFUSES
    pipe install-worker.sh --uninstall --purge
    [ "$status" -eq 1 ]
    [ -e "$HOME/.local/share/relayq/venv" ]
    [ -e "$HOME/.relayq/installed.json" ]
    ! called disable-linger
}

@test "an uninstallation says by which name the fleet knows the machine" {
    has_python
    stub hostname 'echo raspberrypi'
    pipe install-worker.sh --source "$WHEEL"
    pipe install-worker.sh --uninstall
    [ "$status" -eq 0 ]
    [[ $output == *"relayq hosts rm pi4"* ]]
}

@test "the whole line that the broker's machine printed is taken as well" {
    has_python
    pipe install-worker.sh --source "$WHEEL" relayq join rq1.abc
    [ "$status" -eq 0 ]
    called "relayq join -"
}

@test "a machine without a model is told so, and nothing of the shell's" {
    has_python
    pipe install-worker-rpi.sh --source "$WHEEL"
    [ "$status" -eq 1 ]
    [[ $output != *"cannot open"* ]]
}

@test "without a token and a broker nothing runs, and the next step is said" {
    has_python
    pipe install-worker.sh --source "$WHEEL"
    [ "$status" -eq 0 ]
    [[ $output == *"in no fleet yet"*"relayq join TOKEN"* ]]
    ! called "relayq worker install"
    ! called enable-linger
    mkdir -p "$HOME/.relayq/broker" && : >"$HOME/.relayq/broker/broker.json"
    pipe install-worker.sh --source "$WHEEL"
    called "relayq worker install"
}

@test "with sudo, where it is a service of the person, it says so before a token is used" {
    has_python
    mkdir -p "$HOME/.config/systemd/user"
    : >"$HOME/.config/systemd/user/relayq-worker.service"
    stub id 'case $* in -u) echo 0 ;; *) echo fred ;; esac'
    pipe install-worker.sh --source "$WHEEL" --user fred rq1.abc
    [ "$status" -eq 1 ]
    [[ $output == *"is a service of fred"*"type: "*"without sudo"* ]]
    ! called "-m venv"
    ! called "relayq join"
}
