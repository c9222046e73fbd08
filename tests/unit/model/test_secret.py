import pytest

from handiwork.model.errors import ConfigError
from handiwork.model.secret import SealedSecret, check_secret, check_template, fill, permits


def test_a_template_names_its_secrets():
    assert check_template("Basic ${secret:a}:${secret:b.c}") == ("a", "b.c")
    assert check_template("plain $5 {x}") == ()
    assert fill("Bearer ${secret:a}", {"a": "v"}) == "Bearer v"


@pytest.mark.parametrize(
    "template", ["", " a", "a ", "a\nb", "a\rb", "a\0", "é", "${x}", "${secret:A}", "${secret:a"]
)
def test_a_template_that_cannot_stand_in_a_header_is_refused(template):
    with pytest.raises(ConfigError):
        check_template(template)


@pytest.mark.parametrize(
    ("name", "hosts", "value"),
    [
        ("A", ("a.test",), "long enough"),
        ("a", (), "long enough"),
        ("a", ("*",), "long enough"),
        ("a", ("A.test",), "long enough"),
        ("a", ("a.test",), "short"),
        ("a", ("a.test",), "long enough\r\nx: y"),
        ("a", ("a.test",), "long enough\0"),
        ("a", ("a.test",), "naïve-secret"),
        ("a", ("a.test",), " long enough"),
        ("a", ("a.test",), "x" * 9000),
    ],
)
def test_a_secret_that_cannot_be_bound_sent_or_masked_is_refused(name, hosts, value):
    with pytest.raises(ConfigError) as caught:
        check_secret(name, hosts, value)
    assert value not in str(caught.value)


def test_a_secret_goes_to_its_hosts_only():
    sealed = SealedSecret(
        name="k",
        version=1,
        hosts=("a.test", "*.b.test"),
        ephemeral_key=b"",
        nonce=b"",
        ciphertext=b"hidden bytes",
    )
    assert permits(sealed, "a.test")
    assert permits(sealed, "x.b.test")
    assert not permits(sealed, "b.test")
    assert not permits(sealed, "x.a.test")
    assert "hidden" not in repr(sealed)
