# What the installers do, without a machine: test_guests.py has them do it for real.

setup() {
    load stubs
    machine
    touch "$BATS_TEST_TMPDIR/relayq-9-py3-none-any.whl"
    WHEEL=$BATS_TEST_TMPDIR/relayq-9-py3-none-any.whl
}

@test "each installer is what its parts make, and has its checksum" {
    run "$TREE/installers/assemble" --check
    [ "$status" -eq 0 ]
}

@test "an installer that was cut off on its way does nothing" {
    has_python
    for script in install-broker.sh install-worker.sh install-worker-rpi.sh test-relayq.sh; do
        size=$(wc -c <"$TREE/$script")
        for ((end = 1; end < size - 40; end += 997)); do
            head -c "$end" "$TREE/$script" | PATH=$STUBS sh -s -- --source "$WHEEL" >/dev/null 2>&1 || true
        done
        for ((end = size - 40; end < size - 1; end++)); do
            head -c "$end" "$TREE/$script" | PATH=$STUBS sh -s -- --source "$WHEEL" >/dev/null 2>&1 || true
        done
    done
    [ ! -s "$CALLS" ]
}

@test "a dry run says what would be done and does nothing" {
    has_python
    for script in install-broker.sh install-worker.sh; do
        pipe "$script" --dry-run --source "$WHEEL"
        [ "$status" -eq 0 ]
        [[ $output == *"+ "*" -m venv $HOME/.local/share/relayq/venv"* ]]
        [[ $output == *"install --quiet"* ]]
    done
    [ -z "$(ls -A "$HOME")" ]
    ! called "-m venv"
    ! called "relayq worker"
}

@test "a worker is installed apart from the system's Python, joined and made a service" {
    has_python
    pipe install-worker.sh --source "$WHEEL" --name den --slots 3 rq1.abc
    [ "$status" -eq 0 ]
    called "python3 -m venv $HOME/.local/share/relayq/venv"
    called "pip install --quiet --disable-pip-version-check relayq @ file://$WHEEL"
    called "relayq join --name den --slots 3 -"
    ! called rq1.abc
    called "relayq doctor"
    called "relayq run --on pi4 --expires 60s -- echo relayq works"
    [ -L "$HOME/.local/bin/relayq" ]
}

@test "what an upgrade needs to know is written down" {
    has_python
    stub redis-server ''
    pipe install-broker.sh --source "$WHEEL"
    [ "$status" -eq 0 ]
    run cat "$HOME/.relayq/installed.json"
    [ "$output" = '{"method": "venv", "source": "'"$WHEEL"'", "extras": ["serve", "qr"], "venv": "'"\
$HOME"'/.local/share/relayq/venv", "lingers": true}' ]
    called "sudo loginctl enable-linger fred"
}

@test "a machine that is in a fleet stays in it, and its service is made anew" {
    has_python
    mkdir -p "$HOME/.relayq"
    printf 'broker:\n  host: vm\n' >"$HOME/.relayq/config.yml"
    pipe install-worker.sh --source "$WHEEL" --name den rq1.abc
    [ "$status" -eq 0 ]
    [[ $output == *"left unused"* ]]
    ! called "relayq join"
    called "relayq worker install"
}

@test "as root it becomes a service of the machine, for who typed sudo" {
    has_python
    stub id 'case $* in -u) echo 0 ;; -un) echo root ;; esac'
    stub runuser 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"'
    SUDO_USER=$(env id -un) pipe install-worker.sh --dry-run --source "$WHEEL" rq1.abc
    [ "$status" -eq 0 ]
    [[ $output == *" worker install --system --user "* ]]
    [[ $output == *" join --no-service -"* ]]
}

@test "it may be run again, and installs what has the same version then" {
    has_python
    pipe install-worker.sh --source "$WHEEL"
    ! called "--force-reinstall"
    pipe install-worker.sh --source "$WHEEL"
    [ "$status" -eq 0 ]
    called "--force-reinstall --no-deps"
    [ "$(grep -c -- '-m venv' "$CALLS")" -eq 1 ]
}

@test "a section of the configuration that is there stays as it is" {
    has_python
    mkdir -p "$HOME/.relayq"
    printf 'worker:\n  name: mine\n' >"$HOME/.relayq/config.yml"
    pipe install-worker.sh --source "$WHEEL" --slots 9
    [ "$status" -eq 0 ]
    [[ $output == *"stays as it is"* ]]
    [ "$(cat "$HOME/.relayq/config.yml")" = $'worker:\n  name: mine' ]
}

@test "uv is used where it is" {
    has_uv
    pipe install-worker.sh --source "$WHEEL"
    [ "$status" -eq 0 ]
    called "uv tool install --quiet --force --reinstall-package relayq"
    [ ! -e "$HOME/.local/share/relayq/venv" ]
    grep -q '"method": "uv"' "$HOME/.relayq/installed.json"
}

@test "without Python and uv it says what to type, and has done nothing" {
    pipe install-worker.sh --source "$WHEEL"
    [ "$status" -eq 1 ]
    [[ $output == *"no Python 3.11"*"type:"* ]]
    SYSTEM_NAME=Darwin pipe install-worker.sh --source "$WHEEL"
    [[ $output == *"brew install uv"* ]]
    [ -z "$(ls -A "$HOME")" ]
}

@test "what Debian lacks comes from Debian, by sudo" {
    stub apt-get 'case $* in *python3-venv*) cp "'"$STUBS"'/hidden" "'"$STUBS"'/python3" ;; esac'
    has_python
    mv "$STUBS/python3" "$STUBS/hidden"
    pipe install-broker.sh --source "$WHEEL"
    [ "$status" -eq 0 ]
    called "apt-get -qq install -y --no-install-recommends python3 python3-venv"
    called "apt-get -qq install -y --no-install-recommends redis-server"
}

@test "where a Redis runs there is no second one unless somebody says so" {
    has_python
    stub redis-server ''
    stub systemctl '[ "$1 $3" = "is-active redis-server" ]'
    pipe install-broker.sh --source "$WHEEL"
    [ "$status" -eq 1 ]
    [[ $output == *"redis-server.service runs here already"*--use*--beside* ]]
    ! called "relayq broker install"
}

@test "a broker of relayq's that runs already is no other Redis" {
    has_python
    stub redis-server ''
    stub systemctl '[ "$1 $3" = "is-active redis-server" ]'
    mkdir -p "$HOME/.relayq/broker" && : >"$HOME/.relayq/broker/broker.json"
    pipe install-broker.sh --source "$WHEEL"
    [ "$status" -eq 0 ]
}

@test "a Redis that is here is left alone" {
    has_python
    stub redis-server ''
    stub apt-get ''
    stub systemctl '[ "$1 $3" = "is-active redis-server" ]'
    pipe install-broker.sh --source "$WHEEL" --beside
    [ "$status" -eq 0 ]
    [[ $output == *"left alone"* ]]
    ! called apt-get
    ! called "systemctl stop"
    ! called "systemctl --quiet disable"
}

@test "the Redis that --use names is used, and there is no broker of our own" {
    has_python
    pipe install-broker.sh --source "$WHEEL" --use redis://:secret@10.0.0.2:6379/0
    [ "$status" -eq 0 ]
    ! called "relayq broker install"
    grep -q 'url: "redis://:secret@10.0.0.2:6379/0"' "$HOME/.relayq/config.yml"
    [[ $output != *secret* ]]
}

@test "the broker listens on the mesh where there is one" {
    has_python
    stub redis-server ''
    stub tailscale 'echo 100.64.0.3'
    pipe install-broker.sh --source "$WHEEL"
    called "relayq broker install --listen 100.64.0.3"
}

@test "every form of a source is understood" {
    has_python
    pipe install-worker.sh --dry-run --source git+https://git.example/relayq
    [[ $output == *" relayq @ git+https://git.example/relayq"* ]]
    pipe install-worker.sh --dry-run --source https://example/relayq-9-py3-none-any.whl#sha256=ab
    [[ $output == *" relayq @ https://example/relayq-9-py3-none-any.whl#sha256=ab"* ]]
    pipe install-worker.sh --dry-run --source relayq==9
    [[ $output == *" relayq==9 "* ]]
    pipe install-worker.sh --dry-run --source "$BATS_TEST_TMPDIR"
    [[ $output == *" relayq --no-index --find-links $BATS_TEST_TMPDIR"* ]]
    stub redis-server ''
    pipe install-broker.sh --dry-run --source "$TREE"
    [[ $output == *" relayq[serve,qr] @ file://"* ]]
    RELAYQ_SOURCE=$WHEEL pipe install-worker.sh --dry-run
    [[ $output == *"relayq @ file://$WHEEL"* ]]
    PATH=$STUBS run sh "$TREE/install-worker.sh" --dry-run
    [[ $output == *"relayq @ file://"* ]]
}

@test "without a source it says so" {
    pipe install-worker.sh
    [ "$status" -eq 1 ]
    [[ $output == *"where shall relayq come from"*"--source"* ]]
    pipe install-worker.sh --source /nowhere
    [ "$status" -eq 1 ]
    [[ $output == *"/nowhere"* ]]
}

@test "what isn't understood is refused before anything is done" {
    has_python
    for words in --bogus token --model --source; do
        pipe install-worker.sh $words
        [ "$status" -eq 1 ]
        [[ $output == *"type: "* ]]
    done
    ! called relayq
    ! called "-m venv"
}

@test "a Raspberry Pi gets the slots that its model and memory allow" {
    has_python
    local awk
    awk=$(command -v awk)
    while read -r memory slots priority model; do
        stub awk 'case $* in *MemTotal*) echo '"$memory"' ;; *) exec '"$awk"' "$@" ;; esac'
        pipe install-worker-rpi.sh --dry-run --source "$WHEEL" --model "$model"
        [ "$status" -eq 0 ]
        [[ $output == *"jobs at a time $slots, priority $priority"* ]] ||
            { echo "$model: $output" && false; }
    done <<'MODELS'
8000 4 low Raspberry Pi 5 Model B Rev 1.0
4000 4 low Raspberry Pi 4 Model B Rev 1.4
1000 1 idle Raspberry Pi 4 Model B Rev 1.1
1000 1 idle Raspberry Pi 3 Model B Plus Rev 1.3
512 1 idle Raspberry Pi Zero 2 W Rev 1.0
430 1 idle Raspberry Pi Zero W Rev 1.1
430 1 idle Raspberry Pi Model B Rev 2
8000 4 low Raspberry Pi 400 Rev 1.0
MODELS
}

@test "what isn't a Raspberry Pi is told which installer it needs" {
    has_python
    pipe install-worker-rpi.sh --source "$WHEEL" --model 'Some Board'
    [ "$status" -eq 1 ]
    [[ $output == *"install-worker.sh"* ]]
}

@test "uninstalling leaves configuration and jobs, and --purge nothing" {
    has_python
    pipe install-broker.sh --source "$WHEEL"
    touch "$HOME/.relayq/fleet.key"
    pipe install-broker.sh --uninstall
    [ "$status" -eq 0 ]
    called "relayq broker uninstall"
    called "sudo loginctl disable-linger fred"
    [ -f "$HOME/.relayq/fleet.key" ]
    [ ! -e "$HOME/.local/bin/relayq" ]
    pipe install-broker.sh --source "$WHEEL"
    pipe install-broker.sh --uninstall --purge
    [ -z "$(find "$HOME" -type f)" ]
}

@test "test-relayq.sh asks broker, submit, workers and a job, in this order" {
    stub relayq 'case $1 in
    broker) echo fine ;;
    submit) echo 3f2a ;;
    hosts) echo "pi4 idle" ;;
    run) while [ "$1" != echo ]; do shift; done; echo "$2" ;;
    esac'
    PATH=$STUBS run sh "$TREE/test-relayq.sh" pi4
    [ "$status" -eq 0 ]
    [ "$(cut -d ' ' -f 2 "$CALLS" | tr '\n' ' ')" = "broker submit cancel hosts run " ]
    called "relayq run --timeout 60s --on pi4 -- echo"
}

@test "test-relayq.sh stops at what fails, and says what to type" {
    stub relayq 'case $1 in broker) echo fine ;; submit) echo 3f2a ;; hosts) echo "pi4 offline" ;; esac'
    PATH=$STUBS run sh "$TREE/test-relayq.sh"
    [ "$status" -eq 1 ]
    [[ $output == *"ok 2"*"no worker is online"*"type: "*"relayq hosts"* ]]
    stub relayq 'exit 4'
    PATH=$STUBS run sh "$TREE/test-relayq.sh"
    [[ $output == *"broker doesn't answer"* ]]
    PATH=$STUBS RELAYQ=nothing run sh "$TREE/test-relayq.sh"
    [[ $output == *"nothing is no command"* ]]
}
