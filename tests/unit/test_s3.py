"""A wrong bucket setting, or a network fault, is reported in one line that names it."""

import boto3
import pytest
from botocore.exceptions import ConnectTimeoutError, ProxyConnectionError, SSLError
from botocore.httpsession import URLLib3Session

from intent.errors import ConfigError, IntentError
from intent.storage import open_store


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A machine with a pair of keys and no other setting that boto3 reads. Its store does not answer."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": f"{tmp_path}/config",
        "AWS_SHARED_CREDENTIALS_FILE": f"{tmp_path}/credentials",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


def refusal(uri: str = "s3://shop/log") -> str:
    """Return the error of a listing and of a request for an object, which must be the same."""
    reasons = set()
    for ask in (lambda: list(open_store(uri).list()), lambda: open_store(uri).stat("a")):
        with pytest.raises(ConfigError) as refused:
            ask()
        reasons.add(str(refused.value))
    [text] = reasons
    return text


def test_one_key_of_two_is_named(monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "uri='s3://shop/log': " in refusal() and "missing: AWS_SECRET_ACCESS_KEY" in refusal()


def test_a_source_of_credentials_that_fails_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    (tmp_path / "config").write_text("[default]\ncredential_process = false\n")
    assert "custom-process" in refusal() and "instance role" in refusal()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("AWS_PROFILE", "shpo", "(shpo) could not be found"),
        ("AWS_DEFAULT_REGION", "eu west", "'eu west' doesn't match"),
        ("AWS_ENDPOINT_URL_S3", "http://my_store", "Invalid endpoint: http://my_store"),
    ],
)
def test_a_profile_region_or_host_that_can_be_none_is_named(monkeypatch, name, value, expected):
    monkeypatch.setenv(name, value)
    assert expected in refusal() and "correct storage, the AWS variables or the instance role" in refusal()


def test_a_bucket_that_can_have_no_such_name_is_named():
    assert refusal("s3://my bucket/log") == "uri='s3://my bucket/log': is not a valid bucket name; use letters, digits, - and ."


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
def test_an_endpoint_of_the_environment_is_checked_like_a_configured_one(monkeypatch, name):
    monkeypatch.setenv(name, "http://canary-key:canary@127.0.0.1:9")
    assert refusal().startswith(f"{name}='(hidden)': holds credentials")
    monkeypatch.setenv(name, "localhost:9000")
    assert refusal() == f"{name}='localhost:9000': give a URL, such as https://HOST or http://HOST:PORT"


@pytest.mark.parametrize(
    "error",
    [
        ConnectTimeoutError(endpoint_url="http://store"),
        SSLError(endpoint_url="https://store", error="certificate verify failed"),
        ProxyConnectionError(proxy_url="http://canary:canary@proxy"),
    ],
)
def test_a_store_that_is_out_of_reach_is_named_and_how(monkeypatch, error):
    def send(*_):
        raise error

    monkeypatch.setattr(URLLib3Session, "send", send)
    for ask in (lambda: list(open_store("s3://shop").list()), lambda: open_store("s3://shop").stat("a")):
        with pytest.raises(IntentError, match=rf"s3://shop: the store does not answer \({type(error).__name__}\)") as refused:
            ask()
        assert refused.value.exit_code == 1 and "canary" not in str(refused.value)
