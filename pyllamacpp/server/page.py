"""The chat page: the files of `static/`, read once and served with a strict policy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from .exchange import Exchange, Handler

FOLDER = Path(__file__).parent / "static"
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}

# Nothing from elsewhere, nothing inline, and no text that becomes markup or script.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)


@dataclass(frozen=True)
class PageFile:
    """One file of the page. etag: changes with its bytes."""

    kind: str
    text: str
    etag: str

    async def __call__(self, exchange: Exchange, _body: None) -> None:
        """Answers with the file, or with 304 to a browser that has it."""
        headers = {
            "etag": self.etag,
            "cache-control": "no-cache",  # kept, and asked about before each use
            "content-security-policy": _POLICY,
            "cross-origin-opener-policy": "same-origin",
            "referrer-policy": "no-referrer",
        }
        known = dict(exchange.scope["headers"]).get(b"if-none-match", b"").decode("latin-1")
        if self.etag in [tag.strip().removeprefix("W/") for tag in known.split(",")]:
            headers["content-length"] = str(len(self.text.encode()))  # what 200 would have
            await exchange.text("", self.kind, 304, headers)
            return
        await exchange.text(self.text, self.kind, headers=headers)


def page_files() -> dict[str, Handler]:
    """The handler of each path: `/` and `/page/NAME`."""
    found: dict[str, Handler] = {}
    for path in sorted(FOLDER.iterdir()):
        if path.suffix not in _KINDS:
            continue
        text = path.read_text("utf-8")
        etag = f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
        file = PageFile(f"{_KINDS[path.suffix]}; charset=utf-8", text, etag)
        found["/" if path.name == "index.html" else f"/page/{path.name}"] = file
    return found
