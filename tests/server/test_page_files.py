"""The files of the chat page as the server sends them."""

import re
import urllib.error
import urllib.request


def get(address: str, path: str, **headers: str):
    request = urllib.request.Request(address + path, headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        return error


def test_each_file_has_its_type_and_the_policy(address: str) -> None:
    paths = ["/"]
    for path in paths:  # grows: what a file names is looked at too
        with get(address, path) as answer:
            text = answer.read().decode()
            assert answer.status == 200
            policy = answer.headers["content-security-policy"]
            kind = answer.headers["content-type"].split(";")[0]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        suffix = path.rpartition(".")[2]
        assert kind == {"js": "text/javascript", "css": "text/css"}.get(suffix, "text/html")
        named = re.findall(r'"(?:page/|\./)([a-z]+\.(?:js|css))"', text)
        paths += {f"/page/{name}" for name in named} - {*paths}
    assert len(paths) > 10


def test_a_known_file_is_not_sent_again(address: str) -> None:
    with get(address, "/page/app.js") as answer:
        tag = answer.headers["etag"]
    with get(address, "/page/app.js", **{"If-None-Match": f'"other", W/{tag}'}) as again:
        assert (again.status, again.headers["etag"], again.read()) == (304, tag, b"")
    with get(address, "/page/app.js", **{"If-None-Match": '"other"'}) as changed:
        assert changed.status == 200


def test_other_paths_are_not_there(address: str) -> None:
    for path in ("/page/", "/page/../app.py", "/page/%2e%2e/app.py", "/page/index.html"):
        with get(address, path) as answer:
            assert answer.status == 404
