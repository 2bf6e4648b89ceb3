"""Celery's settings, from relayq's configuration.

Celery only carries nudges: no result backend, no acks that matter, no countdowns (each measured
to fail a promise; relayq/README.md says how).
"""

from __future__ import annotations

import re
from typing import Any

from relayq import tls
from relayq.config import Config
from relayq.store.keys import Keys
from relayq.store.sentinels import SentinelUrl, is_sentinel_url


def settings(config: Config, broker_url: str) -> dict[str, Any]:
    """Return what `Celery.conf` is made of, for worker and Flower alike."""
    tls.check(broker_url)
    further: dict[str, Any] = {}
    if is_sentinel_url(broker_url):
        sentinels = SentinelUrl.parse(broker_url)
        broker_url, further = sentinels.celery_url, sentinels.celery_settings
    transport = further.pop("broker_transport_options", {})
    if broker_url.startswith("unix:"):
        broker_url = re.sub(r"([?&])db=", r"\1virtual_host=", f"redis+socket{broker_url[4:]}")
    return {
        "broker_url": broker_url,
        "broker_connection_retry_on_startup": True,
        # The default of 100 ends a worker after about 46 minutes without a broker.
        "broker_connection_max_retries": None,
        "broker_connection_timeout": 4,
        "broker_transport_options": {
            "global_keyprefix": Keys().nudge_prefix(),
            "socket_timeout": 15,
            "socket_connect_timeout": 4,
            "socket_keepalive": True,
            # A half-open connection is found after about 21 s instead of 51.
            "health_check_interval": 10,
            # One list a queue: the claim's sorted sets hold the priority.
            "priority_steps": [0],
            "queue_order_strategy": "priority",
            **transport,
        },
        **further,
        "task_default_queue": "any",
        "task_ignore_result": True,
        "result_backend": None,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_acks_late": False,
        "worker_pool": "relayq.worker:SlotPool",
        "worker_concurrency": config.worker.max_concurrent,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": False,  # our own gate counts adopted and pulled jobs too
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_send_task_events": False,
        # Whoever may publish could stop every worker by it; relayq has lists of its own for that.
        "worker_enable_remote_control": False,
        "enable_utc": True,
    }
