# install-worker.sh: make this machine run jobs of your relayq fleet, as a service. Linux and macOS.
#
#   curl -fsSL .../install-worker.sh | sh -s -- --source git+https://HOST/YOU/relayq TOKEN
#
# TOKEN is what `relayq broker token` printed on the broker's machine. As yourself it becomes a
# service of yours, with sudo one of the whole machine. It may be run again at any time, without a
# token: jobs that run go on. It changes nothing of your shell's files.
#
# Made by installers/assemble; checksums are in installers/SHA256SUMS.
#include shared.sh
#include joining.sh

usage() {
    cat <<'TEXT'
install-worker.sh [OPTIONS] [TOKEN]: make this machine run jobs of your relayq fleet, as a service.

TOKEN is what `relayq broker token` printed on the broker's machine; also taken from RELAYQ_TOKEN.
  --source SOURCE   a checkout, a wheel, a directory of wheels or a Git URL (git+https://...)
  --name NAME       what this machine is called in the fleet (by default its hostname)
  --slots N         how many jobs it runs at a time
  --client          this machine only submits: no worker
  --system          a service of the whole machine, not of yours (the default for root)
  --user NAME       whom jobs run as, for root (by default who typed sudo)
  --dry-run         only say what would be done
  --uninstall       remove service and program; configuration and keys stay
  --purge           with --uninstall: delete configuration and keys as well
TEXT
}

set_model() { die "there is no option --model" "sh $PROGRAM --help"; }

main() {
    set -eu
    umask 022
    PROGRAM=install-worker.sh
    LOOK=''
    worker_main "$@"
}
