"""What guests are made of, and how it gets there: `python -m tests.guests.install`.

A bare Debian, the packages that the installers ask apt for, and the wheels that relayq needs, all
in a cache outside of the tree: the guests themselves reach no network but their own.
"""

from __future__ import annotations

import configparser
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

SUITE = "bookworm"
#: What a machine has before relayq comes: systemd, a login, sudo. No Python, no Redis, no curl.
BARE = "systemd systemd-sysv dbus dbus-user-session libpam-systemd iproute2 procps sudo".split()
#: What the installers ask apt for.
PACKAGES = "python3 python3-venv redis-server".split()
#: What the second layer has besides: a machine as most are, with a Python that has no venv.
USUAL = "python3".split()
#: The extras that the installers ask for.
EXTRAS = "serve tls signing qr".split()
PYTHON = (3, 11)
#: What redis-py needs on the suite's Python 3.11.2, and not on the 3.11 that tests may run on.
OLDER = ["async-timeout>=4.0.3"]
HINT = "python -m tests.guests.install, as root"
TREE = Path(__file__).parents[2]


def lacking() -> list[str]:
    """Return the programs that this machine lacks for guests."""
    programs = {
        "debootstrap": "debootstrap",
        "systemd-nspawn": "systemd-container",
        "nsenter": "util-linux",
        "ip": "iproute2",
    }
    return [package for program, package in programs.items() if shutil.which(program) is None]


def requirements() -> list[str]:
    """Return what relayq and its extras of the installers need, as setup.cfg has it."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(TREE / "setup.cfg", encoding="utf-8")
    texts = [parser["options"]["install_requires"]]
    extras = parser["options.extras_require"]
    texts += [extras[name] for name in EXTRAS if name in extras]
    own = {line for text in texts for line in text.splitlines() if line}
    return sorted(own | {"setuptools>=68", "wheel", *OLDER})


def machines() -> Path:
    """Return the directory of the bare Debian and its packages, whether it is there or not."""
    return _named("guests", [SUITE, *BARE, *PACKAGES, "usual", *USUAL])


def wheels() -> Path:
    """Return the directory of the wheels, whether it is there or not."""
    return _named("wheels", requirements())


def _named(name: str, content: list[str]) -> Path:
    digest = hashlib.sha256("\n".join(content).encode()).hexdigest()[:12]
    return Path("/var/cache/relayq-tests", f"{name}-{digest}")


def is_there() -> bool:
    """Tell whether all of it is there."""
    return machines().exists() and wheels().exists()


def install(*parts: str) -> None:
    """Make these parts, `machines` or `wheels`; each appears when everything is in it."""
    makers = {"machines": (machines(), make_machine), "wheels": (wheels(), download_wheels)}
    for part in parts:
        directory, make = makers[part]
        if directory.exists():
            continue
        building = directory.with_name(f"{directory.name}.{os.getpid()}")
        building.mkdir(parents=True)
        try:
            make(building)
            building.rename(directory)
        finally:
            shutil.rmtree(building, ignore_errors=True)


def make_machine(directory: Path) -> None:
    """Make a bare Debian, and beside it the packages that the installers ask for."""
    bootstrap(directory / "rootfs")
    fetch_packages(directory / "rootfs", directory / "packages")
    add_layer(directory / "rootfs", directory)


def add_layer(rootfs: Path, directory: Path) -> None:
    """Keep what the usual packages add to the bare Debian, as a layer for overlayfs."""
    upper, work, merged = (directory / name for name in ("usual", "usual.work", "usual.merged"))
    for path in (upper, work, merged):
        path.mkdir()
    layers = f"lowerdir={rootfs},upperdir={upper},workdir={work}"
    run("mount", "-t", "overlay", "-o", layers, "overlay", str(merged))
    try:
        (merged / WITHIN[1:]).mkdir()
        run("mount", "--bind", str(directory / "packages"), str(merged / WITHIN[1:]))
        try:
            within = ["chroot", str(merged), "apt-get", "-qq"]
            run(*within, "update")
            run(*within, "install", "-y", "--no-install-recommends", *USUAL)
        finally:
            run("umount", str(merged / WITHIN[1:]))
    finally:
        run("umount", str(merged))
    merged.rmdir()
    shutil.rmtree(work)


def download_wheels(directory: Path) -> None:
    """Fetch every wheel that an installation needs, for this machine's Python; and uv."""
    words = [*requirements(), "uv"]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    run(*pip, "--only-binary", ":all:", "-d", str(directory), *words)


def bootstrap(rootfs: Path) -> None:
    """Make a bare Debian, with nothing of this machine in it."""
    bare = f"--include={','.join(BARE)}"
    run("debootstrap", "--variant=minbase", bare, SUITE, str(rootfs), mirror())
    for own in ("etc/hostname", "etc/machine-id", "etc/resolv.conf"):
        (rootfs / own).unlink(missing_ok=True)


def fetch_packages(rootfs: Path, directory: Path) -> None:
    """Fetch the packages that the installers ask for, and write the index that apt reads."""
    shutil.copyfile("/etc/resolv.conf", rootfs / "etc/resolv.conf")
    within = ["chroot", str(rootfs), "apt-get", "-qq"]
    run(*within, "clean")  # what debootstrap fetched
    run(*within, "update")
    run(*within, "install", "-y", "--no-install-recommends", "--download-only", *PACKAGES)
    (rootfs / "etc/resolv.conf").unlink()
    shutil.move(rootfs / "var/cache/apt/archives", directory)
    (rootfs / "var/cache/apt/archives/partial").mkdir(parents=True)
    shutil.rmtree(rootfs / "var/lib/apt/lists")
    (rootfs / "var/lib/apt/lists/partial").mkdir(parents=True)
    entries = [entry(path) for path in sorted(directory.glob("*.deb"))]
    (directory / "Packages").write_text("\n".join(entries), encoding="utf-8")
    source = f"deb [trusted=yes] file:{WITHIN} ./\n"
    (rootfs / "etc/apt/sources.list").write_text(source, encoding="utf-8")


#: Where a guest has the packages.
WITHIN = "/srv/packages"


def entry(package: Path) -> str:
    """Return what an index says of a package."""
    fields = run("dpkg-deb", "-f", str(package)).rstrip("\n")
    content = package.read_bytes()
    place = f"Filename: ./{package.name}\nSize: {len(content)}"
    return f"{fields}\n{place}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"


def mirror() -> str:
    """Return where this machine's own apt gets the suite from."""
    wanted = "$(RELEASE) $(CODENAME) $(COMPONENT) $(REPO_URI)"
    lines = run("apt-get", "indextargets", "--format", wanted, "Created-By: Packages").splitlines()
    for line in lines:
        release, codename, component, uri = line.split(" ", 3)
        if SUITE in (release, codename) and component == "main":
            return uri
    sys.exit(f"this machine's apt has no {SUITE} main")


def run(*words: str) -> str:
    """Run to the end and return the output; what went wrong is in the error."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(
            f"{' '.join(words)}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.stdout


if __name__ == "__main__":
    if not is_there() and (os.geteuid() != 0 or lacking()):
        sys.exit(f"needs root, and from apt: {' '.join(lacking()) or 'nothing else'}")
    install(*(sys.argv[1:] or ("machines", "wheels")))
