"""Requests and clients as they should not be: each gets its error, and others go on."""

import signal
import socket
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "oracle")]
from asking import post, slots, wait_until
from tiny_model import TinyModel


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"\xff\xfe", 400),
        (b'{"prompt": "\\ud800"}', 400),
        (b'{"prompt": "a", "temperature": NaN}', 400),
        (b'{"prompt": "a", "seed": 1e400}', 400),
        (b'{"prompt": [99999999]}', 400),
        (b'{"prompt": []}', 400),
        (b'{"prompt": ' + b"[" * 50000, 400),
        (b'{"prompt": "' + b"a" * 200000 + b'"}', 413),
        (b'{"prompt": "a", "grammar": "root ::= ("}', 400),
    ],
)
def test_bodies_that_are_no_request(address: str, body: bytes, status: int) -> None:
    found, answer = post(address, "/v1/completions", body)
    assert (found, answer["error"]["type"]) == (status, "invalid_request_error")


def test_a_body_in_chunks_is_limited_too(address: str) -> None:
    url = urlsplit(address)
    with socket.create_connection((url.hostname, url.port), timeout=60) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a-secret\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + b"8000\r\n" + b"a" * 0x8000 + b"\r\n"
        )
        for _ in range(3):
            connection.sendall(b"8000\r\n" + b"a" * 0x8000 + b"\r\n")
        assert b" 413 " in connection.recv(100)


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/health", 405)])
def test_paths_and_methods_there_are_none_of(address: str, path: str, status: int) -> None:
    found, answer = post(address, path, b"{}")
    assert (found, answer["error"]["code"]) == (status, "unknown_url")


@pytest.mark.parametrize("stream", ["false", "true"])
def test_a_client_that_leaves_frees_its_sequence(address: str, stream: str) -> None:
    url = urlsplit(address)
    body = f'{{"prompt": "Once", "max_tokens": 400, "ignore_eos": true, "stream": {stream}}}'
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    head += "Authorization: Bearer a-secret\r\n\r\n"
    with socket.create_connection((url.hostname, url.port), timeout=60) as connection:
        connection.sendall((head + body).encode())
        wait_until(lambda: any(s["is_processing"] for s in slots(address)))
        n_busy = sum(s["is_processing"] for s in slots(address))
    assert n_busy == 1
    wait_until(lambda: not any(s["is_processing"] for s in slots(address)))
    left = max((s["n_cached"] for s in slots(address)), default=0)
    assert left < 400


def test_many_at_once_and_a_queue_that_is_full(start_server, default_model) -> None:
    limits = ("--max-running", "2", "--max-queue", "1", "-c", "128")
    with start_server("-m", str(default_model), *limits) as (address, process):
        found = []
        body = b'{"prompt": "Once", "max_tokens": 40, "ignore_eos": true}'

        def ask() -> None:
            found.append(post(address, "/v1/completions", body))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statuses = [status for status, _ in found]
        assert set(statuses) == {200, 429}
        assert statuses.count(200) >= 3
        # SIGTERM lets the last request end.
        last = threading.Thread(target=ask)
        last.start()
        wait_until(lambda: any(s["is_processing"] for s in slots(address)))
        process.send_signal(signal.SIGTERM)
        last.join()
        assert found[-1][0] == 200
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{{ messages[0].content.nothing.more }}", "the chat template fails"),
        ("{% for", "the chat template cannot be compiled"),
        ("{{ raise_exception('no such role') }}", "refuses these messages: no such role"),
        ("{% for i in range(10 ** 9) %}x{% endfor %}", "the chat template fails"),
    ],
)
def test_a_template_that_fails(start_server, tmp_path, template: str, sentence: str) -> None:
    model = TinyModel(chat_template=template).write(tmp_path / "tiny.gguf")
    with start_server("-m", str(model), "-c", "64") as (address, _):
        body = b'{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}'
        for path in ("/v1/chat/completions", "/apply-template"):
            asked = body if "chat" in path else body.replace(b', "max_tokens": 2', b"")
            status, answer = post(address, path, asked)
            assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
            assert sentence in answer["error"]["message"]
        status, _ = post(address, "/v1/completions", b'{"prompt": "a", "max_tokens": 2}')
        assert status == 200
