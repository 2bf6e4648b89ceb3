# install-worker-rpi.sh: make a Raspberry Pi run jobs of your relayq fleet, as a service.
#
#   curl -fsSL .../install-worker-rpi.sh | sh -s -- --source git+https://HOST/YOU/relayq TOKEN
#
# As install-worker.sh; besides it finds out which model this is, picks how many jobs run at a time
# and how far they stand back, and says what of its memory and its SD card to mind.
#
# Made by installers/assemble; checksums are in installers/SHA256SUMS.
#include shared.sh
#include joining.sh

usage() {
    cat <<'TEXT'
install-worker-rpi.sh [OPTIONS] [TOKEN]: make a Raspberry Pi run jobs of your relayq fleet.

TOKEN is what `relayq broker token` printed on the broker's machine; also taken from RELAYQ_TOKEN.
  --source SOURCE   a checkout, a wheel, a directory of wheels or a Git URL (git+https://...)
  --name NAME       what this machine is called in the fleet (by default its hostname)
  --slots N         how many jobs it runs at a time (by default as its model and memory allow)
  --model TEXT      which Raspberry Pi it is, where it doesn't say so itself
  --client          this machine only submits: no worker
  --system          a service of the whole machine, not of yours (the default for root)
  --user NAME       whom jobs run as, for root (by default who typed sudo)
  --dry-run         only say what would be done
  --uninstall       remove service and program; configuration and keys stay
  --purge           with --uninstall: delete configuration and keys as well
TEXT
}

set_model() { RELAYQ_MODEL=$1; }

main() {
    set -eu
    umask 022
    PROGRAM=install-worker-rpi.sh
    LOOK=look_at_pi
    worker_main "$@"
}

look_at_pi() {
    : "${RELAYQ_MODEL:=$(read_model)}"
    case $RELAYQ_MODEL in
        "Raspberry Pi"*) ;;
        "") die "this machine doesn't say that it is a Raspberry Pi" \
            "install-worker.sh, or --model 'Raspberry Pi 4'" ;;
        *) die "this machine is no Raspberry Pi but: $RELAYQ_MODEL" "install-worker.sh" ;;
    esac
    memory=$(awk '$1 == "MemTotal:" { print int($2 / 1024) }' /proc/meminfo)
    pick_slots
    : "${SLOTS:=$picked}"
    # 19, so that a single core is free for whatever else the machine is for; else 10.
    PRIORITY=low
    [ "$picked" -gt 1 ] || PRIORITY=idle
    step "$RELAYQ_MODEL, $memory MB of memory: jobs at a time $SLOTS, priority $PRIORITY"
    mind_memory
    mind_card
}

read_model() { [ ! -r /proc/device-tree/model ] || tr -d '\0' </proc/device-tree/model; }

# A job for each processor, but half a GB of memory for each as well; the small models have one core,
# or little more than what the worker itself takes.
pick_slots() {
    case $RELAYQ_MODEL in
        *"Zero 2"* | *"Pi 3"*) picked=2 ;;
        *Zero* | *"Pi 2"* | *"Model A"* | *"Model B Rev"* | *"Model B Plus"*)
            picked=1
            # These are names of the first generation, unless a number comes before.
            case $RELAYQ_MODEL in *"Pi 4"* | *"Pi 5"*) picked=4 ;; esac
            ;;
        *) picked=4 ;;
    esac
    by_memory=$((memory / 512))
    [ "$by_memory" -ge 1 ] || by_memory=1
    [ "$picked" -le "$by_memory" ] || picked=$by_memory
}

mind_memory() {
    [ "$memory" -ge 900 ] || warn "with $memory MB the worker itself takes a good part of the memory"
    case $(uname -m) in
        armv6* | armv7*)
            warn "a 32-bit system: some packages must be compiled here, which takes minutes"
            ;;
    esac
}

mind_card() {
    device=$(findmnt -n -o SOURCE / 2>/dev/null) || device=
    case $device in
        /dev/mmcblk*)
            warn "the system is on an SD card, which wears out by writing: have jobs write elsewhere,"
            warn "or move $RELAYQ_HOME to a disk (RELAYQ_HOME=/mnt/disk/relayq)"
            ;;
    esac
    free=$(df -Pk "$ACCOUNT_HOME" | awk 'NR == 2 { print int($4 / 1024) }')
    [ "$free" -ge 1000 ] || warn "only $free MB are free: relayq itself takes 150 MB"
}
