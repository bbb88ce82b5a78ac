"""As much of the Hugging Face hub as a download needs, on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" * 6 + "c0ff"


class FakeHub:
    """Repositories as {"owner/repo": {"path": bytes}}; `gated` ones refuse with 403.

    wrong_bytes: files whose content differs from what their hash says. requests: (method, path).
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.wrong_bytes: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Silent."""

            def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.requests.append((self.command, path))
                parts = PurePosixPath(path).parts[1:]
                if parts[:2] == ("api", "models"):
                    self.api("/".join(parts[2:4]), parts[4:])
                elif len(parts) > 4 and parts[2] == "resolve":
                    self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
                else:
                    self.answer(404)

            def refused(self, repo: str, revision: str) -> bool:
                if repo not in hub.repos:
                    self.answer(404, X_Error_Code="RepoNotFound")
                elif repo in hub.gated:
                    self.answer(403, X_Error_Code="GatedRepo")
                elif revision not in ("main", COMMIT):
                    self.answer(404, X_Error_Code="RevisionNotFound")
                else:
                    return False
                return True

            def api(self, repo: str, rest: tuple[str, ...]) -> None:
                revision = rest[1] if len(rest) > 1 else "main"
                if self.refused(repo, revision):
                    return
                files = [
                    {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                    for name, data in hub.repos[repo].items()
                ]
                siblings = [{"rfilename": file["path"]} for file in files]
                about = {"id": repo, "sha": COMMIT, "siblings": siblings}
                body = files if rest[:1] == ("tree",) else about
                self.answer(200, json.dumps(body).encode(), Content_Type="application/json")

            def resolve(self, repo: str, revision: str, name: str) -> None:
                if self.refused(repo, revision):
                    return
                data = hub.repos[repo].get(name)
                if data is None:
                    self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
                    return
                digest = hashlib.sha256(data).hexdigest()
                if name in hub.wrong_bytes:
                    data = bytes(len(data))
                headers = {
                    "ETag": f'"{digest}"',
                    "X_Linked_ETag": f'"{digest}"',
                    "X_Linked_Size": str(len(data)),
                    "X_Repo_Commit": COMMIT,
                    "Accept_Ranges": "bytes",
                }
                wanted = self.headers.get("Range")
                if wanted and self.command == "GET":
                    start = int(wanted.removeprefix("bytes=").split("-")[0])
                    total = len(data)
                    headers["Content_Range"] = f"bytes {start}-{total - 1}/{total}"
                    self.answer(206, data[start:], **headers)
                else:
                    self.answer(200, data, **headers)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
