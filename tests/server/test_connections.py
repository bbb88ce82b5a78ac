"""Connections: TLS, other origins, slow requests, deadlines, the end of the server."""

import http.client
import json
import signal
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

sys.path.append(str(Path(__file__).parent))
from asking import post, wait_until

ENDLESS = b'{"prompt": "Once", "max_tokens": 100000, "ignore_eos": true}'


def configured(folder: Path, text: str) -> tuple[str, str]:
    file = folder / "server.toml"
    file.write_text(text)
    return "--config", str(file)


def connection(address: str) -> http.client.HTTPConnection:
    url = urlsplit(address)
    return http.client.HTTPConnection(url.hostname, url.port, timeout=60)


def gauge(address: str, name: str) -> float:
    with urllib.request.urlopen(f"{address}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_tls_files(start_server, default_model, tmp_path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(key))
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    files = ("--tls-cert", str(certificate), "--tls-key", str(key))
    with start_server("-m", str(default_model), "-c", "64", *files) as (address, _):
        assert address.startswith("https://")
        context = ssl.create_default_context()
        authority.configure_trust(context)
        with urllib.request.urlopen(f"{address}/health", timeout=60, context=context) as answer:
            assert json.load(answer) == {"status": "ok"}
        with pytest.raises((urllib.error.URLError, ConnectionError, http.client.HTTPException)):
            urllib.request.urlopen(address.replace("https", "http") + "/health", timeout=60)
    with (
        pytest.raises(AssertionError, match="cannot use the TLS files"),
        start_server("-m", str(default_model), "--tls-cert", str(key), "--tls-key", str(key)),
    ):
        pass


def test_other_origins_only_when_named(start_server, default_model, tmp_path, address) -> None:
    def ask(base: str, method: str, **headers: str) -> http.client.HTTPResponse:
        link = connection(base)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        link.request(method, "/health", headers=names)
        answer = link.getresponse()
        answer.read()
        link.close()
        return answer

    wish = {"Origin": "http://a.example", "Access_Control_Request_Method": "POST"}
    assert ask(address, "GET", **wish).getheader("access-control-allow-origin") is None
    assert ask(address, "OPTIONS", **wish).status == 405
    config = configured(tmp_path, 'cors_origins = ["http://a.example"]\n')
    with start_server("-m", str(default_model), "-c", "64", *config) as (base, _):
        for method in ("GET", "OPTIONS"):
            answer = ask(base, method, **wish)
            assert answer.status == 200
            assert answer.getheader("access-control-allow-origin") == "http://a.example"
        wish["Origin"] = "http://b.example"
        assert ask(base, "GET", **wish).getheader("access-control-allow-origin") is None
        assert ask(base, "OPTIONS", **wish).status == 400


HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW_HEAD = b"GET /health HTTP/1.1\r\nHost: x\r\nX-A"
SLOW_BODY = b'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"pro'


@pytest.mark.parametrize("n_before", [0, 1, 2])
@pytest.mark.parametrize("slow", [SLOW_HEAD, SLOW_BODY])
def test_what_arrives_too_slowly(
    start_server, default_model, tmp_path, n_before: int, slow: bytes
) -> None:
    """A byte now and then does not keep a connection, whichever request of it it is."""
    config = configured(tmp_path, "body_timeout = 1.5\n")
    with start_server("-m", str(default_model), "-c", "64", *config) as (address, _):
        url = urlsplit(address)
        with socket.create_connection((url.hostname, url.port), timeout=60) as link:
            stream = link.makefile("rb")
            for _ in range(n_before):
                link.sendall(HEALTH)
                assert b" 200 " in stream.readline()
                while stream.readline() != b"\r\n":
                    pass
                assert stream.read(15) == b'{"status":"ok"}'
            link.sendall(slow)
            stopped = threading.Event()

            def drip() -> None:
                with suppress(OSError):
                    while not stopped.wait(0.3):
                        link.sendall(b"a")

            sender = threading.Thread(target=drip)
            sender.start()
            try:
                found = stream.readline()
                assert b" 408 " in found
                stopped.set()
                rest = b""
                with suppress(ConnectionResetError):  # the last byte may arrive after the close
                    while piece := stream.read1():
                        rest += piece
                assert b"the request took too long to arrive" in rest
                assert b"connection: close" in rest.lower()
            finally:
                stopped.set()
                sender.join()


@pytest.mark.parametrize("part", [SLOW_HEAD, SLOW_BODY])
def test_a_request_that_ends_too_early(address, part: bytes) -> None:
    """Its client has closed its half of the connection, and can still read."""
    url = urlsplit(address)
    named = part.replace(b"Host: x", b"Host: x\r\nAuthorization: Bearer a-secret")
    with socket.create_connection((url.hostname, url.port), timeout=60) as link:
        link.sendall(named)
        link.shutdown(socket.SHUT_WR)
        with link.makefile("rb") as stream:
            found = stream.read()
    assert found.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"the request ended before it was whole" in found
    assert post(address, "/v1/completions", b'{"prompt": "Once", "max_tokens": 1}')[0] == 200


def test_the_deadline(start_server, default_model, tmp_path) -> None:
    config = configured(tmp_path, "deadline = 2.0\n")
    with start_server("-m", str(default_model), "-c", "8192", *config) as (address, _):
        status, answer = post(address, "/v1/completions", ENDLESS)
        assert (status, answer["error"]["code"]) == (504, "deadline")
        # A stream has begun by then: its last event says so.
        body = ENDLESS.replace(b"}", b', "stream": true}')
        request = urllib.request.Request(f"{address}/v1/completions", body)
        with urllib.request.urlopen(request, timeout=60) as stream:
            events = stream.read().decode().split("\n\n")
        assert len(events) > 3
        assert json.loads(events[-2].removeprefix("data: "))["error"]["code"] == "deadline"
        wait_until(lambda: gauge(address, "pyllamacpp_sequences_busy") == 0)
        short = b'{"prompt": "Once", "max_tokens": 1}'
        assert post(address, "/v1/completions", short)[0] == 200


def test_a_drain_is_told_on_kept_connections(start_server, default_model) -> None:
    with start_server("-m", str(default_model), "-c", "2048") as (address, process):
        kept = connection(address)
        kept.request("GET", "/health")
        assert kept.getresponse().read()
        found = []
        body = b'{"prompt": "Once", "max_tokens": 300, "ignore_eos": true}'
        running = threading.Thread(
            target=lambda: found.append(post(address, "/v1/completions", body))
        )
        running.start()
        wait_until(lambda: gauge(address, "pyllamacpp_sequences_busy") == 1)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        kept.request("POST", "/v1/completions", body)
        answer = kept.getresponse()
        error = json.load(answer)["error"]
        assert (answer.status, error["code"]) == (503, "draining")
        assert (answer.getheader("retry-after"), answer.getheader("connection")) == ("1", "close")
        running.join()
        status, done = found[0]
        assert (status, done["usage"]["completion_tokens"]) == (200, 300)
        assert process.wait(60) == 0


def test_requests_that_outlast_the_drain_are_told(start_server, default_model) -> None:
    options = ("-m", str(default_model), "-c", "8192", "--drain", "1")
    with start_server(*options) as (address, process):
        found = []
        running = threading.Thread(
            target=lambda: found.append(post(address, "/v1/completions", ENDLESS))
        )
        running.start()
        body = json.dumps({**json.loads(ENDLESS), "stream": True}).encode()
        with urllib.request.urlopen(f"{address}/v1/completions", body, timeout=60) as stream:
            wait_until(lambda: gauge(address, "pyllamacpp_sequences_busy") == 2)
            process.send_signal(signal.SIGTERM)
            events = stream.read().decode().split("\n\n")
        running.join()
        status, answer = found[0]
        assert (status, answer["error"]["code"]) == (503, "draining")
        assert json.loads(events[-2].removeprefix("data: "))["error"]["code"] == "draining"
        assert process.wait(60) == 0


def test_embeddings_end_with_their_client(start_server, default_model) -> None:
    """Hours of work are left as soon as nobody waits for them: the process can end."""
    with start_server("-m", str(default_model), "-c", "512") as (address, process):
        texts = ["word " * 400 + str(i) for i in range(3000)]
        body = json.dumps({"input": texts}).encode()
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        url = urlsplit(address)
        with socket.create_connection((url.hostname, url.port), timeout=60) as link:
            link.sendall(head.encode() + body)
            wait_until(lambda: gauge(address, "pyllamacpp_requests_running") == 1)
        wait_until(lambda: gauge(address, "pyllamacpp_requests_running") == 0)
        status, answer = post(address, "/v1/embeddings", b'{"input": "a"}')
        assert (status, len(answer["data"])) == (200, 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
