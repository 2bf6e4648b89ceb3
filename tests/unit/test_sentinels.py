"""URLs of brokers behind Redis Sentinel, and of those on a unix socket."""

import ssl

import pytest

from relayq import config
from relayq.celeryconfig import settings
from relayq.errors import ConfigError
from relayq.store import connect
from relayq.store.sentinels import SentinelUrl, is_sentinel_url


@pytest.mark.parametrize(
    ("url", "meaning"),
    [
        ("sentinel://h1", SentinelUrl((("h1", 26379),))),
        (
            "sentinel://h1:26379;sentinel://h2:26380/2",
            SentinelUrl((("h1", 26379), ("h2", 26380)), db=2),
        ),
        (
            "sentinel://h1;sentinel://h2/0?master=fleet",
            SentinelUrl((("h1", 26379), ("h2", 26379)), master="fleet"),
        ),
        (
            "sentinel://:p%40ss@h1:1;sentinel://:p%40ss@h2:2/1",
            SentinelUrl((("h1", 1), ("h2", 2)), db=1, password="p@ss"),
        ),
        (
            "sentinel://ann:pw@h1;sentinel://h2",
            SentinelUrl((("h1", 26379), ("h2", 26379)), username="ann", password="pw"),
        ),
        ("sentinel://[fd00::1]:26379;", SentinelUrl((("fd00::1", 26379),))),
        (
            "sentinel://a:pw@h1/0?replicas=2&sentinel_auth=yes",
            SentinelUrl(
                (("h1", 26379),), username="a", password="pw", replicas=2, has_sentinel_auth=True
            ),
        ),
        (
            "sentinel://h1?ssl_cert_reqs=required&ssl_ca_certs=/my%20ca.crt",
            SentinelUrl((("h1", 26379),), is_encrypted=True, ca_file="/my ca.crt"),
        ),
    ],
)
def test_a_sentinel_url_names_addresses_master_and_database(url, meaning):
    assert is_sentinel_url(url)
    assert SentinelUrl.parse(url) == meaning
    told = SentinelUrl.parse(meaning.celery_url)
    names = ("addresses", "db", "username", "password")
    assert [getattr(told, name) for name in names] == [getattr(meaning, name) for name in names]


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("sentinel://", "each address"),
        ("sentinel://h1;h2:26379", "each address"),
        ("sentinel://h1;redis://h2", "each address"),
        ("sentinel://h1:port", "Port"),
        ("sentinel://[h1", "Invalid IPv6"),
        ("sentinel://h1/zero", "invalid literal"),
        ("sentinel://h1/0;sentinel://h2/1", "contradict"),
        ("sentinel://:a@h1;sentinel://:b@h2", "contradict"),
        ("sentinel://h1?master=a;sentinel://h2?master=b", "contradict"),
        ("sentinel://h1?leader=a", "no option 'leader'"),
        ("sentinel://h1?replicas=all", "a number from 0 to 9"),
        ("sentinel://h1?sentinel_auth=maybe", "yes or no"),
    ],
)
def test_a_wrong_url_says_what_is_wrong_and_its_form(url, complaint):
    with pytest.raises(ConfigError, match=complaint) as caught:
        SentinelUrl.parse(url)

    assert "?master=mymaster" in caught.value.hint


def test_celery_gets_the_database_with_every_address_and_the_master_as_an_option(home):
    url = "sentinel://:pw@h1;sentinel://h2:7/3?master=fleet"
    made = settings(config.load({"RELAYQ_HOME": str(home)}), url)

    assert made["broker_url"] == "sentinel://:pw@h1:26379/3;sentinel://:pw@h2:7/3"
    assert made["broker_transport_options"]["master_name"] == "fleet"


def test_celery_asks_sentinels_and_redis_with_a_user_over_tls_as_the_url_says(home):
    url = "sentinel://a:pw@h1/0?sentinel_auth=yes&ssl_cert_reqs=required&ssl_ca_certs=/ca.crt"
    made = settings(config.load({"RELAYQ_HOME": str(home)}), url)

    checks = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/ca.crt"}
    assert made["broker_use_ssl"] == checks
    asked = made["broker_transport_options"]["sentinel_kwargs"]
    patience = {"socket_timeout": 4.0, "socket_connect_timeout": 4.0}
    assert asked.pop("retry").get_retries() == 0
    assert asked == {"username": "a", "password": "pw", "ssl": True, **checks, **patience}


def test_other_brokers_have_no_master(home):
    made = settings(config.load({"RELAYQ_HOME": str(home)}), "redis://h1/0")

    assert made["broker_url"] == "redis://h1/0"
    assert "master_name" not in made["broker_transport_options"]


def test_a_store_asks_the_sentinels_with_bounded_patience():
    store = connect("sentinel://h1;sentinel://h2/1?master=fleet", patience=2.0)
    pool = store.connection.connection_pool

    assert pool.service_name == "fleet"
    assert pool.connection_kwargs["db"] == 1
    addresses = [
        sentinel.connection_pool.connection_kwargs["host"]
        for sentinel in pool.sentinel_manager.sentinels
    ]
    assert addresses == ["h1", "h2"]
    for sentinel in pool.sentinel_manager.sentinels:
        assert sentinel.connection_pool.connection_kwargs["socket_connect_timeout"] == 2.0
    store.close()


@pytest.mark.parametrize(
    "url", ["unix:///run/r.sock?db=2", "redis+socket:///run/r.sock?virtual_host=2"]
)
def test_a_unix_socket_is_understood_as_redis_and_as_celery_call_it(home, url):
    made = settings(config.load({"RELAYQ_HOME": str(home)}), url)
    reached = connect(url).connection.connection_pool.connection_kwargs

    assert made["broker_url"] == "redis+socket:///run/r.sock?virtual_host=2"
    assert (reached["path"], reached["db"]) == ("/run/r.sock", 2)
