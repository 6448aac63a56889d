"""Requests to a paid endpoint: asked once, retried, rate-limited, counted, and the key kept secret."""

from types import SimpleNamespace

import pytest

from intent import openai
from intent.errors import ConfigError
from intent.openai import HOPELESS, Chat, Endpoint, EndpointConfig, EndpointFailed
from intent.storage import open_store
from tests.endpoints import FakeEndpoint

KEY = "sk-canary-1234"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = FakeEndpoint()
    yield server
    server.close()


def endpoint(server, cache=None, **options) -> Endpoint:
    return Endpoint(EndpointConfig(model="m", url=server.url, **{"attempts": 3, **options}), cache)


def chats(n: int) -> list[Chat]:
    return [Chat((("user", f"message {i}"),), {"temperature": 0.5}) for i in range(n)]


def test_replies_come_in_order_many_at_once_and_are_counted(server):
    server.delay = 0.02
    client = endpoint(server, concurrency=4, input_price=1.0, output_price=10.0)
    assert [reply.text for reply in client.ask(chats(12))] == [f"MESSAGE {i}" for i in range(12)]
    assert 2 <= server.most_together <= 4
    assert (client.usage.input_tokens, client.usage.output_tokens) == (1200, 120)
    assert client.usage.cost == client.usage.spent == pytest.approx(12 * (100 * 1.0 + 10 * 10.0) / 1e6)
    assert server.keys == {f"Bearer {KEY}"}


def test_what_was_answered_is_never_asked_again(server, root):
    cache = open_store(root)
    list(endpoint(server, cache).ask(chats(5)))
    again = endpoint(server, cache, input_price=1.0)
    assert [reply.text for reply in again.ask(chats(7))] == [f"MESSAGE {i}" for i in range(7)]
    assert len(server.seen) == 7 and again.usage.cached == 5
    assert (again.usage.spent, again.usage.cost) == pytest.approx((200 / 1e6, 700 / 1e6))
    list(endpoint(server, cache, options={"temperature": 0.9}).ask(chats(1)))
    assert len(server.seen) == 8


def test_throttled_failing_and_hanging_requests_are_tried_again(server):
    server.faults = [429, 503, "hang"]
    assert [reply.text for reply in endpoint(server, timeout=1.5, concurrency=1, attempts=4).ask(chats(2))] == [
        "MESSAGE 0",
        "MESSAGE 1",
    ]
    assert len(server.seen) == 5


def test_requests_keep_to_the_pace(server, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(openai, "time", SimpleNamespace(monotonic=lambda: 100.0, sleep=slept.append))
    list(endpoint(server, requests_per_minute=1200, concurrency=8).ask(chats(6)))
    assert sorted(slept) == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2, 0.25])


def test_one_refused_chat_is_reported_and_the_others_continue(server):
    server.faults = [400]
    replies = list(endpoint(server, concurrency=1).ask(chats(3)))
    assert [reply.error for reply in replies] == ["BadRequestError 400", "", ""] and replies[0].text is None
    assert len(server.seen) == 3


def test_an_endpoint_that_keeps_failing_ends_the_run_and_keeps_the_answers(server, tmp_path):
    cache = open_store(str(tmp_path))
    list(endpoint(server, cache).ask(chats(2)))
    server.faults = [500] * 1000
    with pytest.raises(EndpointFailed, match="InternalServerError 500"):
        list(endpoint(server, cache, attempts=1).ask(chats(500)))
    assert len(server.seen) < 2 + 3 * HOPELESS
    server.faults = []
    assert next(endpoint(server, cache).ask(chats(1))).cached


@pytest.mark.parametrize("page", ["<html>Welcome</html>", "{}x", '{"choices": [{"message": null}]}'])
def test_what_answers_to_anything_is_no_endpoint(server, page):
    server.page = page
    with pytest.raises(EndpointFailed, match="is not a chat completion"):
        list(endpoint(server).ask(chats(50)))


@pytest.mark.parametrize(("status", "names"), [(401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "endpoint.model='m'")])
def test_a_refused_key_or_model_ends_the_run_without_showing_the_key(server, status, names):
    server.faults = [status] * 100
    with pytest.raises(ConfigError, match=names) as refused:
        list(endpoint(server).ask(chats(3)))
    assert KEY not in str(refused.value) and refused.value.__cause__ is None


def test_no_error_or_stored_answer_contains_the_key_or_a_message(server, tmp_path):
    server.faults = [400]
    replies = list(endpoint(server, open_store(str(tmp_path))).ask(chats(4)))
    kept = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert KEY not in kept + repr(replies) and "message 0" not in replies[0].error


def test_a_hosted_endpoint_without_a_key_names_the_variable(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        list(Endpoint(EndpointConfig(model="m")).ask(chats(1)))


def test_credentials_in_the_url_are_refused_without_being_shown():
    with pytest.raises(ConfigError) as refused:
        EndpointConfig(model="m", url="https://user:hunter2@host/v1")
    assert "hunter2" not in str(refused.value)
