"""The package registries that this host's own pip, npm and apt ask, and a policy that permits just those."""

import functools
import json
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from handiwork.egress.addresses import refuse
from handiwork.model.policy import (
    DEFAULT_PORTS,
    AllowRule,
    Match,
    Policy,
    Rule,
    ServiceRule,
    ServiceTarget,
)

PIP_PACKAGE, NPM_PACKAGE = "iniconfig", "ms"
"""Small ones without dependencies: their pages tell where files lie."""
SECONDS = 60
MAX_PAGE_BYTES = 4 << 20
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Registry:
    """What one client asks: `url` is its setting, `places` all that it fetches from.

    `missing` says why this host does not reach it; then there is nothing else.
    """

    client: str
    url: str = ""
    places: frozenset[str] = frozenset()
    missing: str = ""


@functools.cache
def registry(client: str) -> Registry:
    """Return that of `pip`, `npm` or `apt`."""
    try:
        url, pages = {"pip": _pip, "npm": _npm, "apt": _apt}[client]()
    except (OSError, ValueError, LookupError, subprocess.SubprocessError) as error:
        return Registry(client, missing=f"this host's own {client} reaches no registry: {error}")
    return Registry(client, url, frozenset(map(_origin, pages)))


def policy(name: str, registries: Iterable[Registry]) -> Policy:
    """Return one that lets them be read, and nothing else.

    A name that this host's resolver answers with an address that the proxy refuses to the world, as
    where the host is itself behind a proxy, is a service at that address.
    """
    places = sorted(set().union(*(one.places for one in registries)))
    return Policy(
        name=name, rules=tuple(_rule(f"registry-{n}", place) for n, place in enumerate(places))
    )


def _rule(rule_id: str, place: str) -> Rule:
    url = urlsplit(place)
    assert url.hostname is not None
    port = url.port or DEFAULT_PORTS[url.scheme]
    match = Match(
        hosts=(url.hostname,),
        schemes=(url.scheme,),  # type: ignore[arg-type]  # http or https, of the host's settings
        ports=(port,),
        methods=("GET", "HEAD"),
    )
    found = socket.getaddrinfo(url.hostname, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    if not any(refuse(address) for address in addresses):
        return AllowRule(id=rule_id, match=match)
    target = ServiceTarget(name=rule_id, address=addresses[0], port=port)
    return ServiceRule(id=rule_id, match=match, service=target)


def _pip() -> tuple[str, list[str]]:
    told = _ask(sys.executable, "-m", "pip", "config", "list")
    found = re.search(r"^(?:\S*\.)?index-url='(.*)'$", told, re.MULTILINE)
    where = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    url = found[1] if found else _ask(sys.executable, "-c", where)
    page = f"{url.rstrip('/')}/{PIP_PACKAGE}/"
    links = re.findall(r'href="([^"#]+)', _page(page))
    return url, [page, *(urljoin(page, link) for link in links)]


def _npm() -> tuple[str, list[str]]:
    url = _ask("npm", "config", "get", "registry")
    page = f"{url.rstrip('/')}/{NPM_PACKAGE}/latest"
    return url, [page, json.loads(_page(page))["dist"]["tarball"]]


def _apt() -> tuple[str, list[str]]:
    suite = _suite()
    targets = _ask("apt-get", "indextargets", "--format", "$(CODENAME) $(SITE)")
    pairs = {tuple(line.split()) for line in targets.splitlines()}
    pages = [f"{site}/dists/{name}/InRelease" for name, site in pairs if name.startswith(suite)]
    if not pages:
        raise LookupError(f"its sources have no suite {suite}")
    for page in pages:
        _page(page)
    return suite, pages


def _suite() -> str:
    """Return the name of this host's release of Debian; LookupError where it is none."""
    text = dict(re.findall(r'^(\w+)="?(.*?)"?$', _ask("cat", "/etc/os-release"), re.MULTILINE))
    if text["ID"] != "debian":
        raise LookupError(f"it is {text['ID']}, not Debian")
    return text["VERSION_CODENAME"]


def _ask(program: str, *arguments: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise LookupError(f"there is no {program}")
    done = subprocess.run(
        [found, *arguments], check=True, capture_output=True, text=True, timeout=SECONDS
    )
    return done.stdout.strip()


def _page(url: str) -> str:
    with _DIRECTLY.open(url, timeout=SECONDS) as answer:
        return str(answer.read(MAX_PAGE_BYTES).decode(errors="replace"))


def _origin(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError(f"{parts.scheme}: is no scheme of the proxy")
    return f"{parts.scheme}://{parts.netloc}"
