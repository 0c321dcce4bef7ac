"""TLS files: read, checked to belong together, and read again when certificates are renewed."""

import logging
import sys
from datetime import timedelta
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from certificates import Authority

from serving.access.door import check_exposure
from serving.process.watched import FilesError
from serving.settings import Settings, SettingsError
from serving.transports.tls import open_certificates, read


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_pair_is_read_with_its_end(authority: Authority, caplog: pytest.LogCaptureFixture):
    pair = authority.certify("gateway")
    certificates = read(pair.cert, pair.key, authority.cert)
    assert certificates.concern() is None
    assert not caplog.records


def test_a_key_of_another_certificate_is_named_with_it(authority: Authority):
    one, other = authority.certify("one"), authority.certify("other")
    with pytest.raises(FilesError, match=r"other\.key is not the key of the certificate in .*one\.crt"):
        read(one.cert, other.key, None)


@pytest.mark.parametrize(
    ("which", "setting"), [("cert", "tls_cert"), ("key", "tls_key"), ("ca", "tls_client_ca")]
)
def test_what_is_no_pem_or_not_there_is_named_with_its_setting(
    authority: Authority, tmp_path: Path, which: str, setting: str
):
    pair = authority.certify("gateway")
    files = {"cert": pair.cert, "key": pair.key, "ca": authority.cert}
    for wrong in (tmp_path / "missing", tmp_path / "junk"):
        (tmp_path / "junk").write_text("no PEM")
        with pytest.raises(FilesError, match=rf"{wrong} .*{setting}"):
            read(*(files | {which: wrong}).values())


def test_a_certificate_that_ends_soon_or_has_ended_is_said(
    authority: Authority, caplog: pytest.LogCaptureFixture
):
    for lasts, said in ((timedelta(days=3), "ends on"), (timedelta(days=-1), "ended on")):
        pair = authority.certify("gateway", lasts)
        assert said in read(pair.cert, pair.key, None).concern()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert all("renew it" in record.message for record in caplog.records)


def test_a_renewal_halfway_keeps_the_old_pair_until_the_other_file_is_there(authority: Authority):
    old = authority.certify("gateway")
    settings = Settings(tls_cert=old.cert, tls_key=old.key)
    watched = open_certificates(settings)
    before = watched.value
    key = old.key.read_bytes()
    new = authority.certify("gateway")
    new_key = new.key.read_bytes()
    new.key.write_bytes(key)
    assert not watched.refresh()
    assert watched.value is before
    new.key.write_bytes(new_key)
    assert watched.refresh()
    assert watched.value.chain == new.cert.read_bytes() != before.chain


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tls_cert": "x"}, "tls_cert is given without tls_key"),
        ({"tls_key": "x"}, "tls_key is given without tls_cert"),
        ({"tls_client_ca": "x"}, "without tls_cert"),
        ({"host": "0.0.0.0"}, "api_keys .*tls_client_ca.* 127.0.0.1, or say allow_anonymous"),
        ({"host": "::"}, "allow_anonymous"),
        ({"host": "gateway.example"}, "allow_anonymous"),
        ({"host": "0.0.0.0", "tls_cert": "x", "tls_key": "x"}, "allow_anonymous"),
    ],
)
def test_doors_that_fit_badly_are_refused_with_the_remedy(settings: dict[str, str], said: str):
    with pytest.raises(SettingsError, match=said):
        check_exposure(Settings(**settings))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"host": "localhost"},
        {"host": "::1"},
        {"host": "127.0.0.2"},
        {"host": "0.0.0.0", "api_keys": "x"},
        {"host": "0.0.0.0", "allow_anonymous": True},
        {"host": "0.0.0.0", "tls_cert": "x", "tls_key": "x", "tls_client_ca": "x"},
    ],
)
def test_doors_that_are_shut_or_open_on_purpose_are_taken(settings: dict[str, str]):
    check_exposure(Settings(**settings))
