"""A proxy that injects faults into an S3 server by rule: it throttles, loses replies, hangs, truncates, ignores conditions."""

import http.client
import random
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>by the test</Message></Error>"

REFUSALS = {"slowdown": (503, "SlowDown"), "deny": (403, "AccessDenied"), "unsupported": (501, "NotImplemented")}


@dataclass
class Rule:
    """A fault of `kind` for `count` requests whose "METHOD path" matches `pattern`, each with the probability `share`.

    Kinds: slowdown, deny, unsupported, gone (neither done nor answered), lost (done, but not answered), hang (`seconds`, then
    gone), cut (half of the body), unconditional (If-None-Match is dropped), stale (a listing without its last object).
    """

    kind: str
    pattern: str = ".*"
    count: int = 1 << 30
    share: float = 1.0
    seconds: float = 3.0


@dataclass
class S3Proxy:
    """Rules may change at any time. `requests` counts requests, `hits` injected faults."""

    upstream: str
    seed: int = 0
    rules: list[Rule] = field(default_factory=list)
    hits: int = 0
    requests: int = 0

    def __post_init__(self):
        self.random, self.lock = random.Random(self.seed), threading.Lock()
        proxy = self

        class Handler(_Handler):
            def handle_harmed(self):
                _forward(proxy, self)

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def harm(self, request: str) -> Rule | None:
        with self.lock:
            self.requests += 1
            for rule in self.rules:
                if rule.count > 0 and re.search(rule.pattern, request) and self.random.random() < rule.share:
                    rule.count -= 1
                    self.hits += 1
                    return rule
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Ignore the connection error of a client that the test killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def handle_harmed(self):
        raise NotImplementedError

    def do_GET(self):
        self.handle_harmed()

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET


def _forward(proxy: S3Proxy, request: _Handler) -> None:
    body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
    rule = proxy.harm(f"{request.command} {request.path}")
    kind = rule.kind if rule else ""
    if kind in REFUSALS:
        status, code = REFUSALS[kind]
        return _reply(request, status, [("Content-Type", "application/xml")], ERROR.format(code).encode())
    if kind in ("hang", "gone"):
        time.sleep(rule.seconds if kind == "hang" else 0)
        return _hang_up(request)
    headers = {name: value for name, value in request.headers.items() if name.lower() not in ("connection", "expect")}
    if kind == "unconditional":
        headers.pop("If-None-Match", None)
    status, answer, data = _ask(proxy.upstream, request.command, request.path, body, headers)
    if kind == "lost":
        return _hang_up(request)
    if kind == "stale":
        data = re.sub(rb"<Contents>(?!.*<Contents>).*?</Contents>", b"", data, flags=re.DOTALL)
    _reply(request, status, answer, data, cut=kind == "cut")
    return None


def _ask(upstream: str, method: str, path: str, body: bytes, headers: dict):
    parts = urlsplit(upstream)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    data = answer.read()
    kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in ("transfer-encoding", "connection", "content-length")]
    # The reply to HEAD has the length of a body that is not sent.
    length = answer.getheader("Content-Length") if method == "HEAD" else None
    connection.close()
    return answer.status, [*kept, *([("Content-Length", length)] if length else [])], data


def _reply(request: _Handler, status: int, headers: list, data: bytes, cut: bool = False) -> None:
    request.send_response_only(status)
    for name, value in headers:
        request.send_header(name, value)
    if not any(name == "Content-Length" for name, _ in headers):
        request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(data[: len(data) // 2] if cut else data)
    if cut:
        _hang_up(request)


def _hang_up(request: _Handler) -> None:
    request.wfile.flush()
    request.close_connection = True
    request.connection.shutdown(2)
