"""Models behind an API like OpenAI's: what their answers and refusals come to."""

from __future__ import annotations

import json

import pytest

from relayq.agents import classify
from relayq.agents.answers import ErrorClass, Status, Usage
from relayq.agents.order import Order
from relayq.agents.parsers import parser_named
from relayq.agents.summaries import Summary


def line(**value):
    return json.dumps(value)


def http(*lines, status=200, headers=None):
    parser, summary = parser_named("openai_http"), Summary()
    head = line(type="http.response", status=status, headers=headers or {})
    for each in (head, *lines):
        for event in parser.feed(each):
            summary.add(event)
    for event in parser.finish(0):
        summary.add(event)
    order = Order(agent="groq", adapter={"parser": "openai_http"}, prompt="hi")
    return classify.answer(
        summary, order=order, stderr="", exit_code=0, signal=None, ended_by=None, now=1000.0
    )


def test_a_model_behind_an_api_streams_its_answer():
    answer = http(
        'data: {"model":"llama","choices":[{"delta":{"content":"Hel"}}]}',
        'data: {"model":"llama","choices":[{"delta":{"content":"lo"},"finish_reason":"stop"}]}',
        'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}',
        "data: [DONE]",
    )

    assert (answer.status, answer.text, answer.model) == (Status.OK, "Hello", "llama")
    assert answer.usage == Usage(input=9, output=2)


def test_a_model_behind_an_api_answers_in_one_piece_on_several_lines():
    body = {"model": "m", "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}

    assert http(*json.dumps(body, indent=1).splitlines()).text == "hi"


def test_an_answer_that_breaks_off_is_no_success():
    answer = http('data: {"choices":[{"delta":{"content":"Hel"}}]}')

    assert answer.error_class == ErrorClass.TRANSIENT


@pytest.mark.parametrize(
    ("status", "error", "headers", "expected", "wait"),
    [
        (401, {"message": "no", "code": "invalid_api_key"}, {}, ErrorClass.AUTH, None),
        (429, {"message": "x", "code": "insufficient_quota"}, {}, ErrorClass.BILLING, None),
        (
            429,
            {"message": "slow down", "code": "rate_limit_exceeded"},
            {"retry-after": "7"},
            ErrorClass.RATE_LIMITED,
            7.0,
        ),
        (
            429,
            {"message": "slow down"},
            {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "2m59.56s"},
            ErrorClass.RATE_LIMITED,
            179.56,
        ),
        (503, {"message": "busy"}, {}, ErrorClass.OVERLOADED, None),
        (502, {"message": "gateway"}, {}, ErrorClass.TRANSIENT, None),
        (404, {"message": "x", "code": "model_not_found"}, {}, ErrorClass.INVALID, None),
        (400, {"message": "x", "code": "context_length_exceeded"}, {}, "context_overflow", None),
    ],
)
def test_a_refusal_of_an_api_has_its_class(status, error, headers, expected, wait):
    answer = http(line(error=error), status=status, headers=headers)

    assert (answer.error_class, answer.retry_after) == (expected, wait)


def test_an_api_that_cannot_be_reached_is_a_broken_connection():
    parser, summary = parser_named("openai_http"), Summary()
    for event in parser.feed(line(type="http.error", message="Connection refused")):
        summary.add(event)
    (finished,) = parser.finish(1)

    assert finished.is_error
    assert finished.error == "Connection refused"


@pytest.mark.parametrize(
    ("status", "remaining", "wait"), [(429, "0", 5.0), (429, "7", None), (503, "0", None)]
)
def test_only_an_empty_bucket_is_waited_for(status, remaining, wait):
    reset = {"x-ratelimit-remaining-requests": remaining, "x-ratelimit-reset-requests": "5s"}

    assert http(line(error="no"), status=status, headers=reset).retry_after == wait


@pytest.mark.parametrize(
    ("stop", "expected"),
    [("length", ErrorClass.OUTPUT_LIMIT), ("content_filter", ErrorClass.REFUSED), ("stop", None)],
)
def test_how_a_model_stopped_says_what_its_answer_is_worth(stop, expected):
    choice = {"message": {"content": "hi"}, "finish_reason": stop}

    answer = http(line(choices=[choice]))

    assert (answer.error_class, answer.text) == (expected, "hi")


def test_a_model_that_refuses_in_words_of_its_own_refuses():
    choice = {"message": {"refusal": "I can't help with that."}, "finish_reason": "stop"}

    assert http(line(choices=[choice])).error_class == ErrorClass.REFUSED
