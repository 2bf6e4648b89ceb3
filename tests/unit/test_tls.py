"""Brokers over TLS: which URLs are refused, what is said instead, what `tls: yes` makes."""

import pytest

from relayq import tls
from relayq.celeryconfig import settings
from relayq.config import Broker, Config
from relayq.errors import ConfigError
from relayq.store import connect

CHECKED = "ssl_cert_reqs=required&ssl_ca_certs=/ca.crt"


@pytest.mark.parametrize(
    "url",
    [
        "redis://box:1/0",
        "unix:///run/redis.sock?db=1",
        "sentinel://a:1;sentinel://b:2/0?master=fleet",
        f"rediss://box:1/0?{CHECKED}",
        f"rediss://user:word@box:1/0?{CHECKED}&ssl_check_hostname=true",
        "rediss://box:1/0?ssl_cert_reqs=required",
        f"sentinel://a:1;sentinel://b:2/0?master=fleet&{CHECKED}",
    ],
)
def test_a_url_is_plain_or_has_the_certificate_checked(url):
    assert tls.fault(url) is None
    tls.check(url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("rediss://box:1/0", "without ssl_cert_reqs=required nobody checks who answers"),
        ("rediss://box:1/0?ssl_ca_certs=/ca.crt", "nobody checks who answers"),
        ("rediss://box:1/0?ssl_cert_reqs=none", "ssl_cert_reqs=none lets anybody answer"),
        ("rediss://box:1/0?ssl_cert_reqs=optional", "ssl_cert_reqs=optional lets anybody"),
        ("rediss://box:1/0?ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs=CERT_NONE lets anybody"),
        (f"rediss://box:1/0?{CHECKED}&ssl_check_hostname=False", "lets any machine answer"),
        (f"redis://box:1/0?{CHECKED}", "ssl_ca_certs is for rediss://"),
        ("sentinel://a:1;sentinel://b:2/0?ssl_ca_certs=/ca.crt", "nobody checks who answers"),
        ("REDISS://box:1/0", "nobody checks who answers"),
    ],
)
def test_a_url_without_a_checked_certificate_is_refused_everywhere(url, why, tmp_path):
    for ask in (tls.check, connect, lambda one: settings(Config(home=tmp_path), one)):
        with pytest.raises(ConfigError) as refused:
            ask(url)
        assert why in refused.value.message
        assert "ssl_cert_reqs=required&ssl_ca_certs=/" in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("rediss://box:1", "rediss://box:1/0?ssl_cert_reqs=required&ssl_ca_certs=/path/to/ca.crt"),
        (
            "rediss://local:hidden@box:1/3?ssl_cert_reqs=none&ssl_ca_certs=/my/ca.crt",
            "rediss://local:...@box:1/3?ssl_cert_reqs=required&ssl_ca_certs=/my/ca.crt",
        ),
        (f"redis://box:1/0?{CHECKED}", f"rediss://box:1/0?{CHECKED}"),
    ],
)
def test_the_right_form_of_a_refused_url_is_told_without_its_password(url, right):
    assert tls.right_form(url) == right
    assert tls.fault(tls.right_form(url)) is None


def test_a_broker_by_its_host_has_its_certificate_checked():
    broker = Broker(host="mini", port=7, password="p/w", tls=True)

    assert broker.full_url == "rediss://:p%2Fw@mini:7/0?ssl_cert_reqs=required"


def test_the_file_of_the_ca_may_have_any_name(tmp_path):
    import redis

    broker = Broker(host="mini", tls=True, ca_file=tmp_path / "my & ca?.crt")

    tls.check(broker.full_url)
    options = redis.Redis.from_url(broker.full_url).connection_pool.connection_kwargs
    assert options["ssl_ca_certs"] == str(tmp_path / "my & ca?.crt")


@pytest.mark.parametrize("url", ["redis://box:port/0", "redis://box:99999", "rediss://[::1/0"])
def test_what_is_no_url_says_so(url):
    with pytest.raises(ConfigError, match=r"broker\.url: (Port|Invalid IPv6)"):
        connect(url)


def test_the_file_of_the_ca_can_be_another_one_elsewhere():
    asked = "sentinel://a:1;sentinel://b:2/0?master=fleet&ssl_cert_reqs=required"
    url = f"{asked}&ssl_ca_certs=/my%20ca.crt"

    assert tls.ca_file_of(url) == "/my ca.crt"
    assert tls.with_ca_file(url, "/home/a b/ca.crt") == f"{asked}&ssl_ca_certs=/home/a%20b/ca.crt"
    assert tls.ca_file_of(asked) is None
