"""Who may do what in Redis: the roles of the broker's users, and their rules for `ACL SETUSER`.

The lists are what each role was seen to need: no more commands, and only relayq's own keys. A
script does nothing that its caller may not, so the commands of scripts are among them.
"""

from __future__ import annotations

from dataclasses import dataclass

#: What nobody needs, each of which costs the data or gives away the machine.
FORBIDDEN = tuple(
    "flushall flushdb swapdb keys debug module migrate restore replicaof slaveof failover".split()
)


@dataclass(frozen=True, slots=True)
class Role:
    """What the users of one role may do, in ACL SETUSER's words: commands without their `+`.

    `keys` are patterns of what comes after the prefix that relayq's keys share.
    """

    about: str
    commands: tuple[str, ...]
    channels: tuple[str, ...] = ()
    keys: tuple[str, ...] = ("*",)


ADMIN, WORKER, CLIENT, FLOWER = "admin", "worker", "client", "flower"

#: To send scripts, and several commands in one go; behind sentinels to wait for replicas.
_ASKING = (
    "ping time wait evalsha script|load script|exists multi exec info latency|latest acl|whoami"
)
_READING = (
    "exists get hexists hget hgetall hkeys hmget lrange mget scard smembers sunion ttl xlen xrange "
    "xread xrevrange zcard zmscore zrange zrangebylex zrangebyscore zrank zrevrange "
    "zrevrangebyscore zscore"
)
_WRITING = (
    "del expire hdel hincrby hset hsetnx lpush ltrim persist rpush sadd set srem xadd xtrim zadd "
    "zrem zremrangebyscore"
)
#: To claim, to listen, and to mend indices; then Celery's consumer.
_WORKING = "rpop sismember blpop scan sscan zscan brpop llen watch unwatch"

#: What the dashboard shows, and asks that with.
_LOOKING = (
    "ping time multi exec exists get hget hgetall hmget llen lrange mget scard smembers xread "
    "xrevrange zcard zrange zrevrange"
)
_SHOWN = "events job:* spec:* state:* hosts host:* active:* by_host:* queue:* queues".split()


def _words(*lists: str) -> tuple[str, ...]:
    return tuple(sorted({word for words in lists for word in words.split()}))


_ROLES = {
    ADMIN: Role("the broker's owner, on its machine alone", ("@all",), ("*",)),
    WORKER: Role(
        "a host's worker, and what is typed there",
        _words(_ASKING, _READING, _WRITING, _WORKING),
    ),
    CLIENT: Role(
        "a machine that submits and looks, and runs nothing",
        _words(_ASKING, _READING, _WRITING),
    ),
    FLOWER: Role(
        "Flower's dashboard, which only looks",
        _words(_LOOKING),
        keys=tuple(_SHOWN),
    ),
}
#: The roles that a user can be given.
ROLES = (WORKER, CLIENT, FLOWER)


def about(role: str) -> str:
    """Return who has the role, for people."""
    return _ROLES[role].about


def rules(role: str, prefix: str) -> tuple[str, ...]:
    """Return the words of ACL SETUSER that give a user this role, from nothing.

    `prefix` is what relayq's keys begin with; the owner's may begin with anything.
    """
    told = _ROLES[role]
    start = "" if role == ADMIN else prefix
    return (
        "resetkeys",
        "resetchannels",
        "-@all",
        *(f"~{start}{pattern}" for pattern in told.keys),
        *(f"&{pattern}" for pattern in told.channels),
        *(f"+{command}" for command in told.commands),
        *(f"-{command}" for command in FORBIDDEN if role == ADMIN),
    )
