"""Google's generative language API, as the Gemini CLI speaks it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.agents.openai import said_by
from tests.agents.replies import Cut, Fail, Refuse, Reply, Say, Shell, Turn, Write
from tests.agents.wire import CutOff, Pause, Stream, Whole, pieces_of, texts

USAGE = {
    "promptTokenCount": 100,
    "candidatesTokenCount": 30,
    "cachedContentTokenCount": 20,
    "totalTokenCount": 130,
}
STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}
TYPES = "type.googleapis.com/google.rpc"


class Gemini:
    """POST /v1beta/models/<model>:streamGenerateContent and :generateContent."""

    def reads(self, path: str) -> bool:
        return ":" in path.rpartition("/")[2] and "/models/" in path

    def is_aside(self, path: str, body: Mapping[str, Any]) -> bool:
        return not body.get("tools")

    def turn(self, body: Mapping[str, Any], number: int) -> Turn:
        contents = body["contents"]
        parts = [part for content in contents for part in content.get("parts", ())]
        prompts = [
            part["text"]
            for content in contents
            if content.get("role") == "user"
            for part in content.get("parts", ())
            if "text" in part
        ]
        offered = [one for tool in body.get("tools", ()) for one in declarations(tool)]
        return Turn(
            number=number,
            prompt=prompts[-1] if prompts else "",
            results=sum("functionResponse" in part for part in parts),
            said="\n".join(texts(contents)),
            tools=frozenset(one["name"] for one in offered),
        )

    def answer_aside(self, path: str, body: Mapping[str, Any]) -> Whole | Stream:
        if ":countTokens" in path:
            return Whole({"totalTokens": 100})
        # The router wants JSON: a score above or below a threshold, or a model's name.
        text = '{"complexity_reasoning": "", "complexity_score": 1, "model_choice": "flash"}'
        return self.answer(Say(text), path, body)

    def answer(self, reply: Reply, path: str, body: Mapping[str, Any]) -> Whole | Stream:
        if isinstance(reply, Fail):
            return failure(reply)
        if ":stream" in path:
            return Stream(events(reply))
        return Whole(candidate(parts_of(reply), finish(reply)))


def declarations(tool: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(tool.get("functionDeclarations", ()))


def failure(reply: Fail) -> Whole:
    """Return an error; a usage limit is this API's quota per day."""
    details: list[dict[str, Any]] = []
    if reply.resets_at is not None:
        quota = {"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}
        details.append({"@type": f"{TYPES}.QuotaFailure", "violations": [quota]})
    if reply.retry_after is not None:
        delay = f"{reply.retry_after:g}s"
        details.append({"@type": f"{TYPES}.RetryInfo", "retryDelay": delay})
    error = {
        "code": reply.status,
        "message": reply.message,
        "status": STATUS.get(reply.status, "INTERNAL"),
        "details": details,
    }
    return Whole({"error": error}, status=reply.status)


def parts_of(reply: Reply) -> list[dict[str, Any]]:
    """Return the content that a reply makes up."""
    match reply:
        case Write(path=path, content=content):
            return [call("write_file", {"file_path": path, "content": content})]
        case Shell(command=command):
            given = {"command": command, "description": "run a command"}
            return [call("run_shell_command", given)]
        case Refuse():
            return []
    return [{"text": said_by(reply)}]


def call(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    return {"functionCall": {"name": name, "args": given}}


def finish(reply: Reply) -> str:
    return "PROHIBITED_CONTENT" if isinstance(reply, Refuse) else "STOP"


def candidate(parts: list[dict[str, Any]], finish: str | None) -> dict[str, Any]:
    answer: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    if finish:
        answer["finishReason"] = finish
    return {"candidates": [answer], "usageMetadata": USAGE, "modelVersion": "gemini-mock"}


def events(reply: Reply) -> Iterator[tuple[str, Mapping[str, Any]] | Pause]:
    """Yield a reply as the events of a stream."""
    if isinstance(reply, Say):
        pieces = pieces_of(reply.text, reply.pieces)
        for at, piece in enumerate(pieces, 1):
            yield Pause(reply.pause)
            yield "", candidate([{"text": piece}], "STOP" if at == len(pieces) else None)
        return
    yield "", candidate(parts_of(reply), None if isinstance(reply, Cut) else finish(reply))
    if isinstance(reply, Cut):
        raise CutOff
