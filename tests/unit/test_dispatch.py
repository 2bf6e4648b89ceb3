"""The nudge: the one place that knows the Celery message."""

import json

from relayq.dispatch import message


def test_a_nudge_is_a_lean_celery_message():
    nudge = json.loads(message("abc100000000", "run_command", "host.pi4"))

    assert json.loads(nudge["body"]) == [["abc100000000"], {}, {}]
    assert nudge["content-type"] == "application/json"
    assert nudge["content-encoding"] == "utf-8"
    assert nudge["headers"] == {"task": "relayq.run_command", "id": "abc100000000"}
    assert nudge["properties"] == {
        "delivery_info": {"exchange": "", "routing_key": "host.pi4"},
        "priority": 0,
        "delivery_tag": "abc100000000",
    }


def test_a_nudge_is_small():
    assert len(message("abc100000000", "run_command", "any")) < 400
