"""OpenAI's APIs: responses, as Codex speaks it, and chat completions, which others serve too."""

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

REFUSAL = "I'm sorry, but I can't help with that."
ERRORS = {401: "invalid_request_error", 429: "requests", 400: "invalid_request_error"}
CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}


def failure(reply: Fail) -> Whole:
    """Return an error as both APIs have it."""
    headers = {} if reply.retry_after is None else {"retry-after": f"{reply.retry_after:g}"}
    error: dict[str, Any] = {
        "message": reply.message,
        "type": ERRORS.get(reply.status, "server_error"),
        "code": CODES.get(reply.status),
    }
    if reply.resets_at is not None:
        error |= {"type": "usage_limit_reached", "plan_type": "plus"}
        error["resets_at"] = int(reply.resets_at)
    return Whole({"error": error}, status=reply.status, headers=headers)


def said_by(reply: Reply) -> str:
    """Return the text of a reply that is one."""
    match reply:
        case Say(text=text) | Cut(text=text):
            return text
        case Refuse():
            return REFUSAL
        case Structured(value=value):
            return json.dumps(value)
    return ""


class Responses:
    """POST /v1/responses, always streamed."""

    def reads(self, path: str) -> bool:
        return path.endswith("/responses")

    def is_aside(self, path: str, body: Mapping[str, Any]) -> bool:
        return not body.get("tools")

    def turn(self, body: Mapping[str, Any], number: int) -> Turn:
        items = body["input"] if isinstance(body["input"], list) else [{"content": body["input"]}]
        prompts = ["\n".join(texts(i["content"])) for i in items if i.get("role") == "user"]
        return Turn(
            number=number,
            prompt=prompts[-1] if prompts else "",
            results=sum(item.get("type", "").endswith("_call_output") for item in items),
            said="\n".join(texts(items)),
            tools=frozenset(tool.get("name", tool["type"]) for tool in body.get("tools", ())),
        )

    def answer_aside(self, path: str, body: Mapping[str, Any]) -> Whole | Stream:
        return self.answer(Say("an aside"), path, body)

    def answer(self, reply: Reply, path: str, body: Mapping[str, Any]) -> Whole | Stream:
        if isinstance(reply, Fail):
            return failure(reply)
        return Stream(self.events(reply, self.turn(body, 0).tools))

    def events(
        self, reply: Reply, tools: frozenset[str]
    ) -> Iterator[tuple[str, Mapping[str, Any]] | Pause]:
        """Yield a reply as the events of a stream."""
        id = f"resp_{secrets.token_hex(8)}"
        yield named("response.created", response={"id": id})
        if isinstance(reply, Write | Shell):
            yield named("response.output_item.done", output_index=0, item=call(reply, tools))
        else:
            yield from self.words(reply)
        usage = {
            "input_tokens": 100,
            "input_tokens_details": {"cached_tokens": 20},
            "output_tokens": 30,
            "output_tokens_details": {"reasoning_tokens": 5},
            "total_tokens": 130,
        }
        yield named("response.completed", response={"id": id, "usage": usage})

    def words(self, reply: Reply) -> Iterator[tuple[str, Mapping[str, Any]] | Pause]:
        text, id = said_by(reply), f"msg_{secrets.token_hex(8)}"
        item = {"type": "message", "role": "assistant", "id": id}
        yield named("response.output_item.added", output_index=0, item=item | {"content": []})
        slow = reply if isinstance(reply, Say) else Say(text)
        for piece in pieces_of(text, slow.pieces):
            yield Pause(slow.pause)
            yield named("response.output_text.delta", output_index=0, item_id=id, delta=piece)
        if isinstance(reply, Cut):
            raise CutOff
        done = item | {"content": [{"type": "output_text", "text": text}]}
        yield named("response.output_item.done", output_index=0, item=done)


def named(name: str, **fields: Any) -> tuple[str, Mapping[str, Any]]:
    return name, {"type": name, **fields}


def call(reply: Write | Shell, tools: frozenset[str]) -> dict[str, Any]:
    """Return a call of whatever Codex offers for it."""
    id = f"call_{secrets.token_hex(8)}"
    if isinstance(reply, Write) and "apply_patch" in tools:
        added = "".join(f"+{line}\n" for line in reply.content.splitlines())
        patch = f"*** Begin Patch\n*** Add File: {reply.path}\n{added}*** End Patch\n"
        return {"type": "custom_tool_call", "call_id": id, "name": "apply_patch", "input": patch}
    if isinstance(reply, Write):
        command = f"cat > '{reply.path}' <<'END'\n{reply.content}END"
    else:
        command = reply.command
    if "exec_command" in tools:
        name, given = "exec_command", {"cmd": command, "yield_time_ms": 30_000}
    else:
        name, given = "shell", {"command": ["bash", "-lc", command]}
    return {"type": "function_call", "call_id": id, "name": name, "arguments": json.dumps(given)}


class Completions:
    """POST /chat/completions, streamed or whole, without tools."""

    def reads(self, path: str) -> bool:
        return path.endswith("/chat/completions")

    def is_aside(self, path: str, body: Mapping[str, Any]) -> bool:
        return False

    def turn(self, body: Mapping[str, Any], number: int) -> Turn:
        prompts = [m["content"] for m in body["messages"] if m["role"] == "user"]
        said = "\n".join(texts(body["messages"]))
        return Turn(number, prompts[-1] if prompts else "", 0, said, frozenset())

    def answer_aside(self, path: str, body: Mapping[str, Any]) -> Whole | Stream:
        return self.answer(Say("an aside"), path, body)

    def answer(self, reply: Reply, path: str, body: Mapping[str, Any]) -> Whole | Stream:
        if isinstance(reply, Fail):
            return failure(reply)
        if body.get("stream"):
            return Stream(self.events(reply, body["model"]))
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": said_by(reply)},
            "finish_reason": "content_filter" if isinstance(reply, Refuse) else "stop",
        }
        return Whole(whole("chat.completion", body["model"], choices=[choice], usage=USAGE))

    def events(
        self, reply: Reply, model: str
    ) -> Iterator[tuple[str, Mapping[str, Any] | str] | Pause]:
        text = said_by(reply)
        slow = reply if isinstance(reply, Say) else Say(text)
        for piece in pieces_of(text, slow.pieces):
            yield Pause(slow.pause)
            choice = {"index": 0, "delta": {"role": "assistant", "content": piece}}
            yield "", whole("chat.completion.chunk", model, choices=[choice])
        if isinstance(reply, Cut):
            raise CutOff
        end = "content_filter" if isinstance(reply, Refuse) else "stop"
        choice = {"index": 0, "delta": {}, "finish_reason": end}
        yield "", whole("chat.completion.chunk", model, choices=[choice], usage=USAGE)
        yield "", "[DONE]"


USAGE = {"prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 130}


def whole(sort: str, model: str, **fields: Any) -> dict[str, Any]:
    id = f"chatcmpl-{secrets.token_hex(8)}"
    return {"id": id, "object": sort, "created": 0, "model": model, **fields}
