"""Where the endpoint listens: HTTPS files, and what is said before anybody can reach it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from clinical_reasoner.config.serving import ServingConfig, TlsConfig
from clinical_reasoner.errors import UserError
from serve.listening import address, cautions, check_running, http_options

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own, on import


def proxy_options(**options: Any) -> Any:
    from ray.serve.config import HTTPOptions  # warns when it is imported

    return HTTPOptions(**options)


def make_pair(folder: Path, name: str, *options: str) -> TlsConfig:
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run(
        [*command, *(options or ["-nodes"]), "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    return TlsConfig(certificate=str(certificate), key=str(key))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> TlsConfig:
    return make_pair(tmp_path_factory.mktemp("tls"), "own")


def test_plain_http_on_this_machine_is_the_default() -> None:
    assert http_options(ServingConfig()) == {"host": "127.0.0.1", "port": 8000}
    assert cautions(ServingConfig()) == []


def test_ray_serve_takes_the_files_as_absolute_paths(pair: TlsConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(pair.certificate).parent
    monkeypatch.chdir(folder)
    options = http_options(ServingConfig(tls=TlsConfig(certificate="own.crt", key="own.key")))
    assert proxy_options(**options).ssl_certfile == str(folder / "own.crt")
    assert proxy_options(**options).ssl_keyfile == str(folder / "own.key")


@pytest.mark.parametrize("field", ["certificate", "key"])
def test_a_file_that_is_not_there_is_named_with_its_field(pair: TlsConfig, field: str) -> None:
    with pytest.raises(UserError, match=rf"serving\.tls\.{field}: no file at '/nowhere/x'"):
        http_options(ServingConfig(tls=pair.model_copy(update={field: "/nowhere/x"})))


def test_files_that_are_no_pair_are_refused(pair: TlsConfig, tmp_path: Path) -> None:
    other = make_pair(tmp_path, "other")
    mixed = TlsConfig(certificate=pair.certificate, key=other.key)
    swapped = TlsConfig(certificate=pair.key, key=pair.certificate)
    for tls in (mixed, swapped):
        with pytest.raises(UserError, match="no pair of a certificate and its key"):
            http_options(ServingConfig(tls=tls))


def test_a_key_with_a_password_is_refused_and_not_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the key has a password"):
        http_options(ServingConfig(tls=make_pair(tmp_path, "locked", "-passout", "pass:secret")))


def test_https_is_refused_where_the_proxy_has_none(pair: TlsConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    assert http_options(ServingConfig())["port"] == 8000
    with pytest.raises(UserError, match="HAProxy has no HTTPS"):
        http_options(ServingConfig(tls=pair))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "node.example.org"])
def test_who_can_be_reached_without_keys_or_encryption_is_warned(host: str, pair: TlsConfig) -> None:
    assert [text.split(" and ")[1].split()[0] for text in cautions(ServingConfig(host=host))] == [
        "serving.api_keys",
        "serving.tls",
    ]
    assert cautions(ServingConfig(host=host, api_keys="keys.json", tls=pair)) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.1.1", "::1", "[::1]", "localhost"])
def test_this_machine_alone_needs_no_warning(host: str) -> None:
    assert cautions(ServingConfig(host=host)) == []


def test_the_address_is_one_that_can_be_called(pair: TlsConfig) -> None:
    assert address(ServingConfig()) == "http://127.0.0.1:8000"
    assert address(ServingConfig(host="0.0.0.0", port=443, tls=pair)) == "https://127.0.0.1:443"
    assert address(ServingConfig(host="::")) == "http://[::1]:8000"
    assert address(ServingConfig(host="fe80::1")) == "http://[fe80::1]:8000"


def test_a_serve_that_runs_elsewhere_is_not_silently_used(pair: TlsConfig) -> None:
    wanted = http_options(ServingConfig(port=8443, tls=pair))
    check_running(wanted, None)
    check_running(wanted, proxy_options(**wanted))
    with pytest.raises(UserError, match="already runs in this cluster with port=8000, ssl_certfile=None"):
        check_running(wanted, proxy_options(host="127.0.0.1", port=8000))
    with pytest.raises(UserError, match=r"host=0\.0\.0\.0"):
        check_running(http_options(ServingConfig()), proxy_options(host="0.0.0.0", port=8000))
