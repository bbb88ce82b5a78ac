"""A server that is killed, and the next one."""

import hashlib
import http.client
import json
import threading
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

BODY = json.dumps({"prompt": "Once", "max_tokens": 100000, "ignore_eos": True, "stream": True})


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_kill_9_while_streaming(
    start_server, default_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients get errors, nothing on disk is changed, and the next server on the port answers."""
    for name in ("HOME", "PYLLAMACPP_DATA", "PYLLAMACPP_CACHE", "TMPDIR", "XDG_CACHE_HOME"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    before = digests(tmp_path), digests(default_model.parent)
    begun = threading.Barrier(5, timeout=120)
    errors: list[Exception] = []

    def stream(address: str) -> None:
        url = urlsplit(address)
        link = http.client.HTTPConnection(url.hostname, url.port, timeout=120)
        try:
            link.request("POST", "/v1/completions", BODY, {"Content-Type": "application/json"})
            answer = link.getresponse()
            assert answer.readline().startswith(b"data: {")
            begun.wait()
            answer.read()  # knows a stream that ends without its last chunk
        except (OSError, http.client.HTTPException) as error:
            errors.append(error)
        finally:
            link.close()

    with start_server("-m", str(default_model), "-c", "8192") as (address, process):
        clients = [threading.Thread(target=stream, args=(address,)) for _ in range(4)]
        for client in clients:
            client.start()
        begun.wait()
        process.kill()
        assert process.wait(60) == -9
        for client in clients:
            client.join(60)
    assert len(errors) == 4, errors
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(f"{address}/health", timeout=60)
    assert (digests(tmp_path), digests(default_model.parent)) == before
    port = str(urlsplit(address).port)
    with start_server("-m", str(default_model), "-c", "512", "--port", port) as (again, _):
        assert again == address
        body = json.dumps({"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0})
        request = urllib.request.Request(f"{again}/v1/completions", body.encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert "Paris" in json.load(answer)["choices"][0]["text"]
