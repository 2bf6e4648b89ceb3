"""The files of a broker on several machines: Redis with replicas, and the sentinels beside them.

Each machine gets a directory with `redis.conf`, `sentinel.conf` and the users of both, which are
the same everywhere: whichever Redis becomes the primary knows them. Secrets that are there already
are kept, so that this can be done again. Starting them is for the machines' service managers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from relayq.embedded import userfile
from relayq.embedded.certificates import Authority
from relayq.embedded.processes import write
from relayq.embedded.settings import FSYNC, Encryption, Settings, quoted
from relayq.embedded.sockets import check_listen
from relayq.errors import RelayqError
from relayq.model.access import ADMIN, CLIENT, WORKER, rules
from relayq.store.keys import PREFIX

#: What the sentinels call the primary.
MASTER = "relayq"
_REPLICA, _SENTINEL = "replica", "sentinel"
#: What Redis' own documentation says that a replica, and a sentinel, needs.
_OWN_RULES = {
    ADMIN: "~* &* +@all",
    _REPLICA: "+ping +psync +replconf",
    _SENTINEL: "&* +multi +slaveof +ping +exec +subscribe +config|rewrite +role +publish +info "
    "+client|setname +client|kill +script|kill",
}
_ASKING = "+ping +hello +auth +sentinel|masters +sentinel|slaves +sentinel|replicas"
_ROLES = (WORKER, CLIENT)
_REPLICATION = """
# A replica that this one follows, or has, is known by the machines' addresses.
replica-announce-ip {address}
masteruser replica
masterauth {secret}
# A primary that is cut off from its replicas takes nothing: nobody would ever hear of it.
min-replicas-to-write {needed}
min-replicas-max-lag 10
repl-backlog-size 64mb
"""
_SENTINELS = """\
# Written by relayq; the sentinel adds what it learns.
bind {address}
{ports}
daemonize no
dir {folder}
pidfile {pidfile}
logfile {logfile}
aclfile {users}
sentinel announce-ip {address}
sentinel monitor {master} {primary} {redis_port} {quorum}
sentinel auth-user {master} sentinel
sentinel auth-pass {master} {secret}
sentinel sentinel-user sentinel
sentinel sentinel-pass {secret}
# So many seconds of silence, and most sentinels agree: then the replica that has most takes over.
sentinel down-after-milliseconds {master} {milliseconds}
sentinel failover-timeout {master} 30000
sentinel parallel-syncs {master} 1
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for; the first address is the primary's at first.

    `place` is where each machine will have its directory; with `has_own_places`, for trying it out
    on one machine, below that by its address. `users` are worker-NAME or client-NAME.
    `down` is after how many seconds of silence a primary is given up. `memory` is what each Redis
    may use, in bytes; 0 for half of what this machine has.
    """

    addresses: Sequence[str]
    place: Path
    has_own_places: bool = False
    users: Sequence[str] = _ROLES
    port: int = 6379
    sentinel_port: int = 26379
    is_encrypted: bool = False
    down: float = 5.0
    memory: int = 0
    version: tuple[int, ...] = (7,)

    @property
    def most_lost(self) -> int:
        """How many machines may be lost at a time."""
        return (len(self.addresses) - 1) // 2


def write_nodes(folder: Path, plan: Plan) -> str:
    """Write the directories of all machines below a folder; return the broker's URL.

    It has no user and no secret: each user's is in `<user>.password` beside the directories.
    """
    _check(plan)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    secrets = {name: _secret(folder, name) for name in (*_OWN_RULES, *plan.users)}
    authority = Authority(folder) if plan.is_encrypted else None
    for address in plan.addresses:
        node = folder / address
        node.mkdir(exist_ok=True, mode=0o700)
        if authority is not None:
            authority.issue(node, [address])
            write(node / "ca.crt", authority.certificate.read_bytes())
        write(node / "users.acl", _acl(secrets, _redis_rules).encode())
        write(node / "sentinel-users.acl", _acl(secrets, _sentinel_rules).encode())
        write(node / "redis.conf", _redis(plan, address, secrets[_REPLICA]))
        write(node / "sentinel.conf", _sentinel(plan, address, secrets[_SENTINEL]).encode())
    return _url(plan)


def _check(plan: Plan) -> None:
    for address in plan.addresses:
        check_listen(address)
    if len(set(plan.addresses)) < 3 or len(set(plan.addresses)) % 2 == 0:
        raise RelayqError(
            f"{len(set(plan.addresses))} machines can't agree that one of them is gone",
            hint="give the addresses of 3 (or 5): more than half of the sentinels must be left",
        )
    for name in plan.users:
        if not re.fullmatch(rf"({'|'.join(_ROLES)})(-[a-z0-9][a-z0-9._-]*)?", name):
            raise RelayqError(
                f"{name!r} says no role", hint="worker-NAME for a host, client-NAME for others"
            )


def _secret(folder: Path, name: str) -> str:
    path = folder / f"{name}.password"
    if not path.exists():
        write(path, f"{userfile.new_secret()}\n".encode())
    return path.read_text().strip()


def _acl(secrets: Mapping[str, str], rules_of: Callable[[str], str]) -> str:
    """Return the users of Redis or of a sentinel: sums of their secrets, and what they may do."""
    lines = [userfile.NOBODY]
    for name, secret in secrets.items():
        if told := rules_of(name):
            sum = hashlib.sha256(secret.encode()).hexdigest()
            lines.append(f"user {name} reset on #{sum} {told}")
    return "".join(f"{line}\n" for line in lines)


def _redis_rules(name: str) -> str:
    return _OWN_RULES.get(name) or " ".join(rules(_role(name), PREFIX))


def _sentinel_rules(name: str) -> str:
    if name == _REPLICA:
        return ""
    return "~* &* +@all" if name in _OWN_RULES else f"&* {_ASKING}"


def _role(name: str) -> str:
    return name.partition("-")[0]


def _redis(plan: Plan, address: str, secret: str) -> bytes:
    further = _REPLICATION.format(address=address, secret=secret, needed=plan.most_lost)
    if address != plan.addresses[0]:
        further += f"replicaof {plan.addresses[0]} {plan.port}\n"
    place = plan.place / address if plan.has_own_places else plan.place
    return Settings(
        folder=place,
        addresses=(address,),
        port=plan.port,
        users=place / "users.acl",
        fsync=FSYNC[0],
        version=plan.version,
        encryption=_encryption(place) if plan.is_encrypted else None,
        memory=plan.memory,
        further=further,
    ).text()


def _sentinel(plan: Plan, address: str, secret: str) -> str:
    place = plan.place / address if plan.has_own_places else plan.place
    port = plan.sentinel_port
    return _SENTINELS.format(
        address=address,
        ports=_encryption(place).lines(port) if plan.is_encrypted else f"port {port}",
        folder=quoted(place),
        pidfile=quoted(place / "sentinel.pid"),
        logfile=quoted(place / "sentinel.log"),
        users=quoted(place / "sentinel-users.acl"),
        master=MASTER,
        primary=plan.addresses[0],
        redis_port=plan.port,
        quorum=plan.most_lost + 1,
        secret=secret,
        milliseconds=round(plan.down * 1000),
    )


def _encryption(place: Path) -> Encryption:
    return Encryption(place / "server.crt", place / "server.key", place / "ca.crt")


def _url(plan: Plan) -> str:
    hosts = (f"[{one}]" if ":" in one else one for one in plan.addresses)
    listed = ";".join(f"sentinel://{host}:{plan.sentinel_port}" for host in hosts)
    checked = "&ssl_cert_reqs=required&ssl_ca_certs=/path/to/ca.crt" if plan.is_encrypted else ""
    return f"{listed}/0?master={MASTER}&replicas={plan.most_lost}&sentinel_auth=yes{checked}"
