"""The cache of what jobs took along: what is in it, what goes first, and who fetches."""

from __future__ import annotations

import os
import threading

from relayq.host import cache as caches
from relayq.host.cache import Cache


def test_what_was_not_used_longest_goes_first(tmp_path):
    cache = Cache(str(tmp_path), 250)
    names = [f"{number:064x}" for number in range(3)]
    cache.takes(1)
    for age, name in enumerate(names[:2]):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    assert cache.find(names[0], 100)

    def fetch(path):
        with open(path, "wb") as file:
            file.write(bytes(100))

    cache.have(names[2], 100, fetch).close()

    assert [name for name in names if (tmp_path / name).exists()] == [names[0], names[2]]


def test_a_content_of_another_size_is_not_it(tmp_path):
    (tmp_path / ("a" * 64)).write_bytes(b"torn")

    assert Cache(str(tmp_path), 100).find("a" * 64, 5) is None


def test_two_jobs_fetch_a_content_once(tmp_path):
    cache = Cache(str(tmp_path), 1000)
    cache.takes(1)
    begun, go_on, fetched = threading.Event(), threading.Event(), []

    def fetch(path):
        begun.set()
        go_on.wait(10)
        fetched.append(path)
        with open(path, "wb") as file:
            file.write(b"12345")

    def have():
        cache.have("b" * 64, 5, fetch).close()

    threads = [threading.Thread(target=have) for _ in range(2)]
    threads[0].start()
    assert begun.wait(10)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(10)

    assert len(fetched) == 1


def test_a_download_that_stands_still_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(caches, "_PATIENCE", 0.1)
    cache = Cache(str(tmp_path), 1000)
    cache.takes(1)

    with cache._try("c" * 64) as is_held:
        assert is_held
        assert cache.have("c" * 64, 5, lambda path: None) is None
