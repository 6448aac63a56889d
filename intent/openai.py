"""Send chats to any OpenAI-compatible endpoint (a hosted model, vLLM, llama.cpp's server), many at once.

Answers are stored under the hash of the request. So no chat is paid for twice, and an interrupted run continues where it
stopped. The API key comes from the environment and goes only into the request. This module knows nothing of the chats' content.
"""

import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from intent.errors import ConfigError, IntentError, require
from intent.storage import Store, sha256

NO_KEY = "none"
HOPELESS = 10


@dataclass
class EndpointConfig:
    """Configure a model behind an OpenAI-compatible API.

    `url`: the base URL, such as http://127.0.0.1:8000/v1; None is OpenAI's own. `key_variable`: the environment variable that
    contains the API key. `concurrency`: requests at once. `requests_per_minute`: None means no limit. `attempts`: per request.
    `timeout`: in seconds. `options`: override the job's options of each request; null removes one. `input_price`,
    `output_price`: USD per million tokens.
    """

    model: str | None = None
    url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 8
    requests_per_minute: float | None = None
    attempts: int = 6
    timeout: float = 60.0
    options: dict[str, Any] = field(default_factory=dict)
    input_price: float = 0.0
    output_price: float = 0.0

    def __post_init__(self):
        require("@" not in (self.url or ""), "endpoint.url", "(hidden)", "contains credentials; set the key's variable instead")
        for name in ("concurrency", "attempts", "timeout"):
            require(getattr(self, name) > 0, f"endpoint.{name}", getattr(self, name), "use a positive number")
        rate = self.requests_per_minute
        require(rate is None or rate > 0, "endpoint.requests_per_minute", rate, "use a positive number, or null for no limit")
        for name in ("input_price", "output_price"):
            require(getattr(self, name) >= 0, f"endpoint.{name}", getattr(self, name), "use USD per million tokens, at least 0")


@dataclass(frozen=True)
class Chat:
    """Hold the (role, text) turns of a chat, and options of the request such as temperature. Both determine the answer."""

    turns: Sequence[tuple[str, str]]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """Hold an answer.

    `text`: None if the endpoint gave no answer; then `error` has the reason. `seconds`: the time of the request with its
    retries. `cached`: whether it came from the store.
    """

    text: str | None
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    cached: bool = False
    error: str = ""


@dataclass
class Usage:
    """Hold sums over replies. `cost`: USD for all tokens. `spent`: USD without the replies from the store."""

    asked: int = 0
    cached: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    spent: float = 0.0


class EndpointFailed(IntentError):
    """The endpoint failed for several requests in a row, after all retries of each. Earlier answers are stored."""


class Endpoint:
    """Send chats to the model at `config.url`, and sum up their `usage`. `cache`: stores the answers; None stores none."""

    def __init__(self, config: EndpointConfig, cache: Store | None = None):
        if not config.model:
            raise ConfigError("endpoint.model", config.model, "name the model that the endpoint serves")
        self.config, self.cache, self.usage = config, cache, Usage()
        self._pace = _Pace(config.requests_per_minute)
        self._failures, self._lock, self._over = 0, threading.Lock(), threading.Event()

    def ask(self, chats: Iterable[Chat]) -> Iterator[Reply]:
        """Yield a reply to each chat, in order, with `config.concurrency` requests at once.

        Raises ConfigError if the endpoint refuses the key or the model, and EndpointFailed if HOPELESS requests in a row fail.
        """
        self._client = self._connect()
        self._over.clear()
        pool = ThreadPoolExecutor(self.config.concurrency, thread_name_prefix="endpoint")
        try:
            for reply in pool.map(self._answer, chats):
                self._count(reply)
                yield reply
        finally:
            self._over.set()
            pool.shutdown(cancel_futures=True)

    def _answer(self, chat: Chat) -> Reply:
        if self._over.is_set():
            return Reply(None, error="not asked")
        request = self._request(chat)
        key = _cache_key(self.config.url, request)
        if stored := self._stored(key):
            return stored
        self._pace.wait()
        start = time.monotonic()
        reply = self._send(request)
        seconds = time.monotonic() - start
        if reply.text is not None and self.cache:
            values = {"text": reply.text, "input_tokens": reply.input_tokens, "output_tokens": reply.output_tokens}
            self.cache.put_if_absent(key, json.dumps(values | {"seconds": seconds}, ensure_ascii=False).encode())
        return Reply(**asdict(reply) | {"seconds": seconds})

    def _request(self, chat: Chat) -> dict:
        messages = [{"role": role, "content": text} for role, text in chat.turns]
        options = {**chat.options, **self.config.options}
        return {"model": self.config.model, "messages": messages} | {k: v for k, v in options.items() if v is not None}

    def _stored(self, key: str) -> Reply | None:
        try:
            return Reply(**json.loads(self.cache.read(key)), cached=True) if self.cache else None
        except FileNotFoundError:
            return None

    def _send(self, request: Mapping) -> Reply:
        """Send one chat. Errors contain only a kind and a status, because a server's text may repeat the key or the message."""
        import openai

        refused = {
            openai.AuthenticationError: (self.config.key_variable, "(hidden)", "the endpoint refuses this key"),
            openai.PermissionDeniedError: (self.config.key_variable, "(hidden)", "this key may not use the model"),
            openai.NotFoundError: ("endpoint.model", self.config.model, "the endpoint has no such model or path"),
        }
        try:
            completion = self._client.chat.completions.create(**request)
            usage, choices = completion.usage, completion.choices
            text = choices[0].message.content if choices else None
        except openai.APIError as error:
            if type(error) in refused:
                self._over.set()
                raise ConfigError(*refused[type(error)]) from None
            status = getattr(error, "status_code", None)
            return self._failed(type(error).__name__ + (f" {status}" if status else ""), status)
        except (ValueError, AttributeError):
            # A wrong path, or a proxy that answers everything, returns for example an HTML page.
            return self._failed("its answer is not a chat completion", None)
        with self._lock:
            self._failures = 0
        tokens = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
        read, written = tokens
        return Reply(text, read, written, error="" if text is not None else "empty answer")

    def _failed(self, reason: str, status: int | None) -> Reply:
        with self._lock:
            # A refusal of one chat, for example of a prompt that is too long, says nothing about the others.
            self._failures += status is None or status == 429 or status >= 500
            hopeless = self._failures >= HOPELESS
        if hopeless:
            self._over.set()
            raise EndpointFailed(
                f"endpoint.url={self.config.url!r}: {HOPELESS} requests in a row failed ({reason}) after "
                f"{self.config.attempts} attempts each; earlier answers are stored, run again to continue"
            ) from None
        return Reply(None, error=reason)

    def _count(self, reply: Reply) -> None:
        prices, usage = self.config, self.usage
        cost = (reply.input_tokens * prices.input_price + reply.output_tokens * prices.output_price) / 1e6
        usage.asked += 1
        usage.cached += reply.cached
        usage.failed += reply.text is None
        usage.input_tokens += reply.input_tokens
        usage.output_tokens += reply.output_tokens
        usage.cost += cost
        usage.spent += 0.0 if reply.cached else cost

    def _connect(self):
        """Create the client. It retries with exponential backoff and jitter, and obeys a Retry-After header."""
        from openai import OpenAI

        key = require_key(self.config)
        retries = self.config.attempts - 1
        return OpenAI(api_key=key or NO_KEY, base_url=self.config.url, timeout=self.config.timeout, max_retries=retries)


def require_key(config: EndpointConfig) -> str | None:
    """Return the API key, or None if there is none. Raises ConfigError if OpenAI's own endpoint is used without a key."""
    key = os.environ.get(config.key_variable)
    if config.model and not config.url and not key:
        raise ConfigError(config.key_variable, "", f"set this environment variable to the API key for {config.model}")
    return key


class _Pace:
    """Space requests evenly, at most `per_minute` of them per minute."""

    def __init__(self, per_minute: float | None):
        self._gap = 60 / per_minute if per_minute else 0.0
        self._next, self._lock = 0.0, threading.Lock()

    def wait(self) -> None:
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._next)
            self._next = begin + self._gap
        time.sleep(begin - now)


def _cache_key(url: str | None, request: Mapping) -> str:
    digest = sha256(json.dumps([url, request], sort_keys=True, ensure_ascii=False).encode())
    return f"{digest[:2]}/{digest}.json"
