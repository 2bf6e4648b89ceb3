worker_main() {
    DRY_RUN='' UNINSTALL='' PURGE='' SYSTEM='' NAME='' SLOTS='' CLIENT='' PRIORITY=''
    TOKEN=${RELAYQ_TOKEN:-} IS_IN=yes
    mind_the_end
    while [ $# -gt 0 ]; do
        case $1 in
            --source) need_word "$1" $# && RELAYQ_SOURCE=$2 && shift ;;
            --name) need_name "$1" "${2:-}" $# && NAME=$2 && shift ;;
            --slots) need_number "$1" "${2:-}" $# && SLOTS=$2 && shift ;;
            --user) need_word "$1" $# && ACCOUNT=$2 && shift ;;
            --model) need_word "$1" $# && set_model "$2" && shift ;;
            --client) CLIENT=yes ;;
            --system) SYSTEM=yes ;;
            --dry-run) DRY_RUN=yes ;;
            --uninstall) UNINSTALL=yes ;;
            --purge) PURGE=yes ;;
            -h | --help) usage && return ;;
            rq1.*) TOKEN=$1 ;;
            -*) die "there is no option $1" "sh $PROGRAM --help" ;;
            relayq | join) ;; # the line that is printed on a terminal has these before the token
            *) die "a token begins with rq1., not: $1" "relayq broker token, on the broker's machine" ;;
        esac
        shift
    done
    find_account
    if [ -n "$UNINSTALL" ]; then
        uninstall_worker
        return
    fi
    [ -n "$CLIENT" ] || check_scope worker
    find_source
    [ -z "$LOOK" ] || "$LOOK"
    choose_method
    install_package
    is_in_fleet || IS_IN=
    if [ -n "$IS_IN" ] && [ -n "$TOKEN" ]; then
        say "This machine is in a fleet already, and stays in that; the token is left unused."
        TOKEN=
    fi
    settle_in
    if [ -z "$TOKEN" ] && [ -z "$IS_IN" ] && ! has_own_broker; then
        say "Without a token this machine is in no fleet yet, so nothing runs here."
        say_next
        return
    fi
    [ -n "$CLIENT" ] || keep_lingering
    join_fleet
    # Joining installs a service of one's own; one of the machine only root can.
    if [ -z "$CLIENT" ] && { [ -z "$TOKEN" ] || [ -n "$SYSTEM" ]; }; then
        step "the worker, as a service"
        service worker install
    fi
    examine || warn "what doctor says above wants attention"
    [ -z "$IS_IN" ] || [ -n "$CLIENT" ] || first_job
    say_next
}

# What was asked for is configuration before the first start.
settle_in() {
    set --
    [ -n "$TOKEN" ] || [ -z "$NAME" ] || set -- "$@" "name: $NAME"
    [ -n "$TOKEN" ] || [ -z "$SLOTS" ] || set -- "$@" "max_concurrent: $SLOTS"
    [ -z "$PRIORITY" ] || set -- "$@" "priority: $PRIORITY"
    [ $# -eq 0 ] || configure worker "$@"
}

join_fleet() {
    [ -n "$TOKEN" ] || return 0
    step "joining"
    set --
    [ -z "$NAME" ] || set -- "$@" --name "$NAME"
    [ -z "$SLOTS" ] || set -- "$@" --slots "$SLOTS"
    [ -z "$CLIENT" ] || set -- "$@" --client
    [ -z "$SYSTEM" ] || set -- "$@" --no-service
    # By its input, where no list of processes shows it.
    printf '%s\n' "$TOKEN" | as_account "$RELAYQ" join "$@" -
    IS_IN=yes
}

is_in_fleet() { has_section broker; }

has_own_broker() { [ -e "$RELAYQ_HOME/broker/broker.json" ]; }

say_next() {
    step "next"
    if [ -z "$IS_IN" ]; then
        say "On the broker's machine: relayq broker token. Then here: relayq join TOKEN"
    else
        say "From any machine of the fleet: relayq status, relayq run --on $(host_name) -- uname -a"
    fi
}

uninstall_worker() {
    name=
    ! find_relayq || name=$(host_name)
    remove_services worker
    remove_package
    stop_lingering
    purge
    say_removed "On the broker's machine: relayq hosts rm ${name:-$(hostname)}"
}
