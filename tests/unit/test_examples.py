from pathlib import Path

import pytest

from handiwork.egress.decide import compile_layers
from handiwork.model.policy import EgressRequest, PolicyLayer, parse_policy

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_an_example_policy_holds(path: Path) -> None:
    parse_policy(path.read_text(), format="toml")


@pytest.mark.parametrize(
    ("method", "host", "target", "allowed"),
    [
        ("POST", "api.github.com", "/repos/acme/shop/issues", True),
        ("POST", "api.github.com", "/repos/acme/shop/hooks", False),
        ("POST", "api.github.com", "/repos/other/shop/issues", False),
        ("DELETE", "api.github.com", "/repos/acme/shop/issues/1", False),
        ("GET", "example.com", "/", False),
    ],
)
def test_the_work_policy_decides_as_it_says(
    method: str, host: str, target: str, allowed: bool
) -> None:
    policy = parse_policy((EXAMPLES / "work.toml").read_text(), format="toml")
    compiled = compile_layers((PolicyLayer(scope="agent", policy=policy),))
    request = EgressRequest(scheme="https", host=host, port=443, method=method, path=target)
    assert compiled.decide(request).allowed is allowed
