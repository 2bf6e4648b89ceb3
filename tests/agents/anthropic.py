"""Anthropic's messages API, as Claude Code speaks it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from tests.agents.replies import (
    Cut,
    Fail,
    Refuse,
    Reply,
    Say,
    Shell,
    Structured,
    Turn,
    Write,
)
from tests.agents.wire import CutOff, Pause, Stream, Whole, pieces_of, texts

#: What every turn costs, so that a test can add up.
USAGE = {
    "input_tokens": 100,
    "output_tokens": 30,
    "cache_creation_input_tokens": 10,
    "cache_read_input_tokens": 20,
}
ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class Anthropic:
    """POST /v1/messages, streamed or whole."""

    def reads(self, path: str) -> bool:
        return path.startswith("/v1/messages")

    def is_aside(self, path: str, body: Mapping[str, Any]) -> bool:
        return path.endswith("/count_tokens") or not body.get("tools")

    def turn(self, body: Mapping[str, Any], number: int) -> Turn:
        blocks = [
            block
            for message in body["messages"]
            for block in (
                message["content"]
                if isinstance(message["content"], list)
                else [{"type": "text", "text": message["content"], "role": message["role"]}]
            )
        ]
        prompts = [
            "\n".join(texts(message["content"]))
            for message in body["messages"]
            if message["role"] == "user"
        ]
        return Turn(
            number=number,
            prompt=prompts[-1] if prompts else "",
            results=sum(block["type"] == "tool_result" for block in blocks),
            said="\n".join(texts(body["messages"])),
            tools=frozenset(tool["name"] for tool in body.get("tools", ())),
        )

    def answer_aside(self, path: str, body: Mapping[str, Any]) -> Whole | Stream:
        if path.endswith("/count_tokens"):
            return Whole({"input_tokens": 100})
        return self.answer(Say("an aside"), path, body)

    def answer(self, reply: Reply, path: str, body: Mapping[str, Any]) -> Whole | Stream:
        if isinstance(reply, Fail):
            return failure(reply)
        if body.get("stream"):
            return Stream(events(reply, body["model"]))
        if isinstance(reply, Cut):
            return Stream(cut())
        return Whole(message(blocks_of(reply), stop_reason(reply), body["model"]))


def failure(reply: Fail) -> Whole:
    """Return an error, with the headers of a rate limit."""
    headers = {"request-id": "req_mock"}
    if reply.retry_after is not None:
        headers["retry-after"] = f"{reply.retry_after:g}"
    if reply.resets_at is not None:
        reset = f"{reply.resets_at:.0f}"
        headers |= {
            "anthropic-ratelimit-unified-status": "rejected",
            "anthropic-ratelimit-unified-reset": reset,
            "anthropic-ratelimit-unified-representative-claim": "five_hour",
            "anthropic-ratelimit-unified-5h-status": "rejected",
            "anthropic-ratelimit-unified-5h-reset": reset,
            "anthropic-ratelimit-unified-5h-utilization": "1.0",
        }
    error = {"type": ERRORS.get(reply.status, "api_error"), "message": reply.message}
    body = {"type": "error", "error": error, "request_id": "req_mock"}
    return Whole(body, status=reply.status, headers=headers)


def blocks_of(reply: Reply) -> list[dict[str, Any]]:
    """Return the content that a reply makes up."""
    match reply:
        case Say(text=text) | Cut(text=text):
            return [{"type": "text", "text": text}]
        case Write(path=path, content=content):
            return [call("Write", {"file_path": path, "content": content})]
        case Shell(command=command):
            return [call("Bash", {"command": command, "description": "run a command"})]
        case Structured(value=value):
            return [call("StructuredOutput", dict(value))]
    return []


def call(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{secrets.token_hex(8)}", "name": name, "input": given}


def stop_reason(reply: Reply) -> str:
    match reply:
        case Refuse():
            return "refusal"
        case Write() | Shell() | Structured():
            return "tool_use"
    return "end_turn"


def message(content: list[dict[str, Any]], stop: str | None, model: str) -> dict[str, Any]:
    return {
        "id": f"msg_{secrets.token_hex(8)}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": USAGE,
    }


def events(reply: Reply, model: str) -> Iterator[tuple[str, Mapping[str, Any]] | Pause]:
    """Yield a reply as the events of a stream."""
    begun = message([], None, model) | {"usage": USAGE | {"output_tokens": 1}}
    yield named("message_start", message=begun)
    for index, block in enumerate(blocks_of(reply)):
        yield named("content_block_start", index=index, content_block=emptied(block))
        for piece in deltas(reply, block):
            if isinstance(piece, Pause):
                yield piece
            else:
                yield named("content_block_delta", index=index, delta=piece)
        if isinstance(reply, Cut):
            raise CutOff
        yield named("content_block_stop", index=index)
    delta = {"stop_reason": stop_reason(reply), "stop_sequence": None}
    yield named("message_delta", delta=delta, usage={"output_tokens": USAGE["output_tokens"]})
    yield named("message_stop")


def cut() -> Iterator[tuple[str, Mapping[str, Any]] | Pause]:
    """End the answer before it began."""
    raise CutOff
    yield


def named(name: str, **fields: Any) -> tuple[str, Mapping[str, Any]]:
    return name, {"type": name, **fields}


def emptied(block: Mapping[str, Any]) -> dict[str, Any]:
    return {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}


def deltas(reply: Reply, block: Mapping[str, Any]) -> Iterator[Mapping[str, Any] | Pause]:
    if block["type"] == "tool_use":
        if isinstance(reply, Structured):
            yield Pause(reply.pause)
        yield {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        return
    slow = reply if isinstance(reply, Say) else Say(block["text"])
    for piece in pieces_of(slow.text, slow.pieces):
        yield Pause(slow.pause)
        yield {"type": "text_delta", "text": piece}
