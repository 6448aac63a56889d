"""An OpenAI-compatible server for tests, with configured answers and faults."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeEndpoint:
    """`answer`: the text for a request's body. `faults`: statuses to give first, one a request; "hang" answers too late.

    `page`: HTML that it answers to anything, instead.
    """

    def __init__(self, answer: Callable[[dict], str] = lambda body: body["messages"][-1]["content"].upper()):
        self.answer, self.faults, self.delay, self.page = answer, [], 0.0, ""
        self.seen: list[dict] = []
        self.keys: set[str] = set()
        self.together = self.most_together = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _begin(self, body: dict, key: str) -> int | str | None:
        with self._lock:
            self.seen.append(body)
            self.keys.add(key)
            self.together += 1
            self.most_together = max(self.most_together, self.together)
            return self.faults.pop(0) if self.faults else None

    def _reply(self, body: dict, key: str) -> tuple[int, dict]:
        fault = self._begin(body, key)
        time.sleep(5.0 if fault == "hang" else self.delay)
        with self._lock:
            self.together -= 1
        if isinstance(fault, int):
            return fault, {"error": {"message": f"the key {key} cannot ask {body['messages']}"}}
        message = {"role": "assistant", "content": self.answer(body)}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        return 200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}

    def _handler(endpoint) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, reply = endpoint._reply(body, self.headers["Authorization"])
                data = (endpoint.page or json.dumps(reply)).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if endpoint.page else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.send_header("retry-after-ms", "20")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        return Handler
