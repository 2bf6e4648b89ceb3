# A machine of stubs: a PATH with nothing but harmless tools and commands that only say in $CALLS that
# they were called.

machine() {
    STUBS=$BATS_TEST_TMPDIR/stubs
    CALLS=$BATS_TEST_TMPDIR/calls
    HOME=$BATS_TEST_TMPDIR/home
    export HOME CALLS
    unset SUDO_USER RELAYQ_HOME RELAYQ_TOKEN RELAYQ_SOURCE RELAYQ_MODEL
    TREE=$BATS_TEST_DIRNAME/../..
    mkdir -p "$STUBS" "$HOME"
    : >"$CALLS"
    local tool
    for tool in sh cat sed awk grep tr mkdir rm rmdir ln ls dirname env head cp chmod df mktemp mv touch tail; do
        ln -s "$(command -v "$tool")" "$STUBS/$tool"
    done
    stub id 'case $* in -u) echo 1000 ;; *) echo fred ;; esac'
    stub uname 'case $1 in -m) echo "${MACHINE:-x86_64}" ;; *) echo "${SYSTEM_NAME:-Linux}" ;; esac'
    stub hostname 'echo pi4'
    stub systemctl '[ "$1" != is-active ]'
    # Only root may.
    stub loginctl '[ "$1" != --no-ask-password ]'
    stub sudo 'exec "$@"'
    stub git ''
}

# A command that is called by its name only: $1 its name, $2 what it does besides.
stub() {
    cat >"$STUBS/.new" <<STUB
#!/bin/sh
printf '%s\n' "$1 \$*" >>"$CALLS"
$2
STUB
    chmod +x "$STUBS/.new"
    # Renamed over what is there: written through, a link to a tool would be this machine's own tool.
    mv -f "$STUBS/.new" "$STUBS/$1"
}

# Python 3.11, whose venvs have a python and a relayq that do nothing either.
has_python() {
    has_relayq
    stub python3 'case $2 in
    venv) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    pip) cp "'"$STUBS"'/a-relayq" "${0%/*}/relayq" ;;
    esac'
}

has_uv() {
    has_relayq
    stub uv 'case $2 in
    install) mkdir -p "$HOME/.local/bin" && cp "'"$STUBS"'/a-relayq" "$HOME/.local/bin/relayq" ;;
    list) echo "relayq v9" ;;
    esac'
}

# What installs as relayq: it says its version and this machine's name.
has_relayq() {
    stub a-relayq 'case $1 in
    version) echo "relayq 9" ;;
    config) echo "worker.name  pi4  default" ;;
    esac'
    sed -i 's/a-relayq \$/relayq $/' "$STUBS/a-relayq"
}

# The installer as somebody has it who pipes it into sh.
pipe() {
    local script=$1
    shift
    PATH=$STUBS run sh -c 'script=$1; shift; cat "$script" | sh -s -- "$@"' sh "$TREE/$script" "$@"
}

called() { grep -qF -- "$1" "$CALLS"; }
