"""A model behind OpenAI's chat completions API (Groq, Ollama, vLLM), as a program like any agent's.

The request comes as JSON on standard input, the key in the environment. Standard output has a line
on the response (`http.response` or `http.error`) and then its body as it comes. Nothing is tried
again here: waiting is done in the queue. Standard library only.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

#: To reach it at all; then it may take its time, a model has to be loaded, say.
_CONNECT_PATIENCE = 20.0
#: A larger answer is no model's.
_LARGEST = 32 * 2**20


def main() -> None:
    """Send what standard input holds, and pass on the answer."""
    order = json.load(sys.stdin.buffer)
    try:
        answer = send(order, os.environ.get(order["key_env"] or "", ""))
        headers = {name.lower(): value for name, value in answer.headers.items()}
        say({"type": "http.response", "status": answer.status, "headers": headers})
        left = _LARGEST
        while left > 0 and (line := answer.readline(left)):
            left -= len(line)
            sys.stdout.buffer.write(line.rstrip(b"\r\n") + b"\n")
            sys.stdout.buffer.flush()
    except (OSError, http.client.HTTPException, ValueError) as error:
        say({"type": "http.error", "message": f"{order['url']}: {error or type(error).__name__}"})
        sys.exit(1)


def say(line: Mapping[str, Any]) -> None:
    """Write a line of our own."""
    sys.stdout.buffer.write(json.dumps(line).encode() + b"\n")
    sys.stdout.buffer.flush()


def send(order: Mapping[str, Any], key: str) -> http.client.HTTPResponse:
    """Return the response, whatever its status is."""
    way = urlsplit(order["url"])
    if way.hostname is None:
        raise ValueError("that is no URL")
    sort = http.client.HTTPSConnection if way.scheme == "https" else http.client.HTTPConnection
    connection = sort(way.hostname, way.port, timeout=_CONNECT_PATIENCE)
    connection.connect()
    # Kept: the connection lets go of it when the answer is to be the last.
    way_there = connection.sock
    way_there.settimeout(float(order["first_answer"] or order["patience"]))
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    path = way.path.rstrip("/") + "/chat/completions"
    connection.request("POST", path, json.dumps(request(order)).encode(), headers)
    answer = connection.getresponse()
    way_there.settimeout(float(order["patience"]))
    return answer


def request(order: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of the request."""
    body: dict[str, Any] = {
        "model": order["model"],
        "messages": [{"role": "user", "content": order["prompt"]}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if order["schema"] is not None:
        schema = {"name": "answer", "schema": order["schema"], "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body
