"""What guest code asks to fetch: it is refused, or sent as one request of a known shape, redirected too."""

import atheris
import httptools
from target import PLANTED, fuzz, must

with atheris.instrument_imports(include=["handiwork.sandboxes.isolate.fetch_rules"]):
    from handiwork.model.errors import ToolFailedError
    from handiwork.sandboxes.isolate.fetch_rules import Asked, checked, head, redirected


class Heard:
    """What a server takes a request for."""

    def __init__(self) -> None:
        self.ended = 0
        self.url = b""
        self.names: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.names.append(name.lower())

    def on_message_complete(self) -> None:
        self.ended += 1


def check(asked: Asked) -> None:
    heard = Heard()
    parser = httptools.HttpRequestParser(heard)
    try:
        parser.feed_data(head(asked) + asked.body)
    except (
        httptools.HttpParserError
    ):  # the proxy is as strict: it refuses, and nothing of it was a request
        must(heard.ended == 0, "a request, and more")
        return
    must(heard.ended == 1, "not exactly one request")
    must(parser.get_method().decode() == asked.method, "another method")
    must(heard.url.decode() == asked.url, "another URL")
    must(asked.url.startswith(("http://", "https://")), "a URL that is none of HTTP")
    must(b"proxy-authorization" not in heard.names, "words to the proxy")
    must(heard.names.count(b"host") == 1, "not exactly one host")
    must(PLANTED != "fetch_rules" or len(asked.headers) < 2, "planted")


def test(data: bytes) -> None:
    """Lines: a method, a URL, where it is redirected to, and headers."""
    method, url, location, *lines = (*data.decode("utf-8", "replace").split("\n"), "", "", "")
    headers = tuple((name, value) for name, _, value in (line.partition(":") for line in lines))
    try:
        asked = checked(Asked(method=method, url=url, headers=headers[:-3], body=b"x"))
    except ToolFailedError:
        return
    if asked.method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"):
        check(asked)
    try:
        following = redirected(asked, 302, [location])
    except ToolFailedError:
        return
    if following is not None and following.method in ("GET", "HEAD", "PUT", "DELETE", "PATCH"):
        check(following)


if __name__ == "__main__":
    fuzz(test)
