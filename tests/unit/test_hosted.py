"""A hosted model gets the same messages, and its answers are scored as they are."""

import json

import pytest

from intent.artifacts import Artifact, ArtifactRecord, Files, fingerprint, make
from intent.dataset import dataset
from intent.dataset.example import Example, to_table
from intent.engine import Status
from intent.evaluate import hosted
from intent.evaluate.results import hosted_result
from intent.openai import Endpoint, EndpointConfig, EndpointFailed
from intent.storage import StorageOptions, open_store
from tests.endpoints import FakeEndpoint
from tests.tiny import BASKET, CART, NAMES
from tests.unit.test_report import XEON, measured

HERE = StorageOptions()
EGGS = {"action": "add", "product": "Eggs", "quantity": 2}
NONE = {"action": "none", "product": None, "quantity": None}
WRONG = {
    "hello": "add eggs",
    "prose": "Sure! I added eggs.",
    "unknown": json.dumps(EGGS | {"product": "Caviar"}),
    "list": "[1]",
}


def answer(body: dict) -> str:
    message = json.loads(body["messages"][-1]["content"])["message"]
    return WRONG.get(message, json.dumps(EGGS if "eggs" in message else NONE))


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = FakeEndpoint(answer)
    yield server
    server.close()


def held_out(folder, messages: list[str]) -> Artifact:
    examples = [Example(str(i), text, EGGS if "eggs" in text else NONE, "en") for i, text in enumerate(messages)]

    def build(target):
        for key, table in dataset.split_files("test", to_table(examples)):
            (target / key).write_bytes(table)
        dataset.write_catalogs(target, {"": NAMES})

    return make(str(folder), ArtifactRecord("data", {}, {}), build)


@pytest.fixture
def data(tmp_path) -> Artifact:
    """Return 40 held-out messages: 30 about eggs, 6 without an intent, and 4 whose answer is not valid."""
    return held_out(tmp_path, ['two eggs, "please"', *(f"{i} eggs" for i in range(29)), *(f"hi {i}" for i in range(6)), *WRONG])


def config(server, **more) -> EndpointConfig:
    prices = {"input_price": 2.0, "output_price": 8.0}
    return EndpointConfig(model="big-1", url=server.url, attempts=2, **prices, **more)


def test_answers_are_scored_as_they_are_and_the_price_is_of_their_tokens(server, data, tmp_path):
    made = hosted.measure(config(server), CART, data, str(tmp_path), HERE)
    predictions, figures = hosted.read(made, HERE)
    assert [p.intent for p in predictions[:36]] == [EGGS] * 30 + [NONE] * 6
    assert {p.status for p in predictions[36:]} == {Status.REJECTED}
    assert figures.cost == pytest.approx(40 * (100 * 2.0 + 10 * 8.0) / 1e6)
    examples = dataset.read_split(Files(data), "test")
    row = hosted_result(CART, examples, made, HERE, measured("reference", XEON, 38, 10, 270))
    assert row["score"]["exact"] == pytest.approx(0.9)
    assert row["price_per_million"] == pytest.approx(280.0)
    assert row["peak_bytes"] is None
    system = server.seen[0]["messages"][0]["content"]
    assert "Crème brûlée" in system and server.seen[0]["temperature"] == 0.0
    assert len({body["messages"][0]["content"] for body in server.seen}) == 1, "one prefix for all, so that it can be cached"


def test_it_is_asked_once_and_an_interrupted_run_goes_on(server, data, tmp_path):
    server.faults = [None] * 25 + [401]
    with pytest.raises(Exception, match="refuses this key"):
        hosted.measure(config(server, concurrency=1), CART, data, str(tmp_path), HERE)
    hosted.measure(config(server, concurrency=1), CART, data, str(tmp_path), HERE)
    assert len(server.seen) == 41
    hosted.measure(config(server, concurrency=1), CART, data, str(tmp_path), HERE)
    assert len(server.seen) == 41


def test_an_endpoints_trouble_is_no_wrong_answer_and_is_asked_again(server, data, tmp_path):
    server.faults = [None] * 5 + [500, 500]
    with pytest.raises(EndpointFailed, match=r"1 of 40 requests failed .*500.*run again"):
        hosted.measure(config(server, concurrency=1), CART, data, str(tmp_path), HERE)
    made = hosted.measure(config(server, concurrency=1), CART, data, str(tmp_path), HERE)
    assert hosted.read(made, HERE)[1].failed == 0


def test_a_model_that_refuses_every_request_has_a_reason_and_no_score(server, data, tmp_path):
    server.faults = [400] * 40
    with pytest.raises(EndpointFailed, match=r"40 of 40 requests failed \(BadRequestError 400\).*baseline\.options"):
        hosted.measure(config(server, concurrency=1), CART, data, str(tmp_path), HERE)


def test_a_limit_a_minute_bounds_the_rate_that_is_told(server, data, tmp_path):
    made = hosted.measure(config(server, requests_per_minute=6000), CART, data, str(tmp_path), HERE)
    assert hosted.read(made, HERE)[1].messages_per_second <= 100


@pytest.mark.slow
def test_a_real_server_answers_every_message(smollm2_url, tmp_path):
    asked = EndpointConfig(model="smollm2", url=smollm2_url, concurrency=1, options={"max_tokens": 12}, input_price=1.0)
    made = hosted.measure(asked, CART, held_out(tmp_path, ["two eggs", "hello", "no eggs"]), str(tmp_path), HERE)
    predictions, figures = hosted.read(made, HERE)
    assert len(predictions) == 3 and figures.failed == 0
    assert figures.input_tokens > 3 * 100 and 3 <= figures.output_tokens <= 3 * 12
    assert figures.cost == pytest.approx(figures.input_tokens / 1e6)
    assert figures.latency_p50 <= figures.latency_p95


def test_lists_are_asked_for_and_checked_as_lists(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    drop = EGGS | {"action": "remove", "quantity": 1}
    replies = {
        "two eggs, no eggs": {"intents": [drop, EGGS]},
        "eggs and eggs": {"intents": [EGGS, EGGS]},
        "hello": {"intents": []},
        "flat": EGGS,
        "unknown": {"intents": [EGGS | {"product": "Caviar"}]},
    }
    server = FakeEndpoint(lambda body: json.dumps(replies[json.loads(body["messages"][-1]["content"])["message"]]))
    endpoint = Endpoint(config(server), open_store(str(tmp_path)))
    examples = [Example(str(i), text, {"intents": []}, "en") for i, text in enumerate(replies)]
    try:
        predictions, _ = hosted.ask(endpoint, BASKET, examples, {"": NAMES})
    finally:
        server.close()
    assert [p.intent for p in predictions[:3]] == [
        {"intents": [drop, EGGS]},
        {"intents": [EGGS | {"quantity": 4}]},
        {"intents": []},
    ]
    assert [p.status for p in predictions[3:]] == [Status.REJECTED] * 2
    system = server.seen[0]["messages"][0]["content"]
    assert "left out of the list" in system and '"maxItems": 4' in system and '"none"' not in system
    assert server.seen[0]["max_tokens"] == 800


def test_the_words_for_one_intent_are_those_that_earlier_answers_were_asked_with():
    assert fingerprint(hosted._instruction(CART)) == "dd3848f751fb5ad1"
