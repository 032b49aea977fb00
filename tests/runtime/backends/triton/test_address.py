import pytest

from runtime.backends.triton.address import Address
from runtime.errors import ModelError


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("triton://host/m", Address("host:8001", "m")),
        ("triton://host:9000/m/3", Address("host:9000", "m", "3")),
        ("triton://[::1]:1/m", Address("[::1]:1", "m")),
        ("triton://[fe80::1%25eth0]/m", Address("[fe80::1%25eth0]:8001", "m")),
        ("triton://a.b-c_d/m/?timeout=0.5", Address("a.b-c_d:8001", "m", timeout=0.5)),
        ("triton://h/m?shared_memory=system", Address("h:8001", "m", memory="system")),
        ("triton://h/m?timeout=86400", Address("h:8001", "m", timeout=86400.0)),
    ],
)
def test_addresses_are_parsed(url, address):
    assert Address.parse(url) == address


@pytest.mark.parametrize(
    "rest",
    [
        "", "/m", "h", "h/", "[::1/m", "::1]/m", "h\u2100/m", "h h/m", "h/m/a", "h/m/\u00b2",
        "h/m/1/2", "h/m/" + "9" * 20, "h:0/m", "user@h/m", "user:word@h/m", "h/m#part", "h/m\x1b",
        "\x1b[31mh/m", "h/m\n", "h/m?other=1", "h/m?shared_memory=disk", "h/m?timeout=1&x",
    ],
)  # fmt: skip
def test_other_texts_are_refused(rest):
    with pytest.raises(ModelError, match=r"is not an address of a served model: write triton://"):
        Address.parse(f"triton://{rest}")


@pytest.mark.parametrize(
    "rest", ["h:x/m", "h:99999/m", "h:\u00b2/m", "h/m?timeout=", "h/m?timeout=x"]
)
def test_texts_in_place_of_numbers_are_refused(rest):
    with pytest.raises(ModelError, match=r"has no number where one is expected: write triton://"):
        Address.parse(f"triton://{rest}")


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "1e300", "86401"])
def test_a_timeout_is_between_zero_and_a_day(timeout):
    with pytest.raises(ModelError, match=r"has a timeout of .* s, it is above 0 and 86400 at most"):
        Address.parse(f"triton://h/m?timeout={timeout}")
