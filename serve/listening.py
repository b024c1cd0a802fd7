"""Where the endpoint listens: options of Ray Serve's proxy, its TLS files, and what a start has to warn of."""

from __future__ import annotations

import ipaddress
import os
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clinical_reasoner.config.serving import ServingConfig, TlsConfig
from clinical_reasoner.errors import UserError

HA_PROXY_VARIABLE = "RAY_SERVE_ENABLE_HA_PROXY"
_COMPARED = ("host", "port", "ssl_certfile", "ssl_keyfile")
"""Of the options: decide whether clients reach the endpoint as its config says."""


def http_options(serving: ServingConfig) -> dict[str, Any]:
    """Of Ray Serve's proxy. Raises UserError where HTTPS cannot be had as configured."""
    options: dict[str, Any] = {"host": serving.host, "port": serving.port}
    if serving.tls is None:
        return options
    if os.environ.get(HA_PROXY_VARIABLE) == "1":
        raise UserError(
            f"serving.tls: Ray Serve's HAProxy has no HTTPS; unset {HA_PROXY_VARIABLE}, or leave serving.tls out and "
            "put a proxy with TLS before the endpoint"
        )
    check_tls(serving.tls)
    # Absolute: the proxy is a process with another working folder.
    certificate, key = (str(Path(file).resolve()) for file in (serving.tls.certificate, serving.tls.key))
    return {**options, "ssl_certfile": certificate, "ssl_keyfile": key}


def check_tls(tls: TlsConfig) -> None:
    """Raises UserError, with the field, for a file that cannot be read, a key with a password, or no pair."""
    for name, file in (("certificate", tls.certificate), ("key", tls.key)):
        try:
            Path(file).read_bytes()
        except OSError as error:
            raise UserError(
                f"serving.tls.{name}: no file at {file!r} that can be read: {type(error).__name__}"
            ) from error
    try:
        # Never asked for at a terminal; a key that needs a password is refused.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise UserError(
            f"serving.tls: {tls.certificate!r} and {tls.key!r} are no pair of a certificate and its key in PEM form, "
            "or the key has a password"
        ) from error


def address(serving: ServingConfig) -> str:
    """URL of the endpoint, as one would call it from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(serving.host, serving.host)
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{'https' if serving.tls else 'http'}://{shown}:{serving.port}"


def cautions(serving: ServingConfig) -> list[str]:
    """What whoever starts the endpoint should know: who can reach it, and who can read along."""
    if _is_loopback(serving.host):
        return []
    place = f"serving.host={serving.host} can be reached from other machines"
    return [
        text
        for missing, text in (
            (serving.api_keys is None, f"{place} and serving.api_keys is not set: whoever reaches it is answered"),
            (serving.tls is None, f"{place} and serving.tls is not set: patients' data travels unencrypted"),
        )
        if missing
    ]


def check_running(wanted: Mapping[str, Any], running: Any) -> None:
    """Raises UserError where Ray Serve already runs in the cluster and listens elsewhere: it would ignore `wanted`.

    `running`: its HTTPOptions, or None where it does not run yet.
    """
    if running is None:
        return
    differ = [name for name in _COMPARED if wanted.get(name) != getattr(running, name)]
    if differ:
        found = ", ".join(f"{name}={getattr(running, name)}" for name in differ)
        raise UserError(
            f"Ray Serve already runs in this cluster with {found}, which cannot be changed while it runs: set "
            "serving.host, serving.port and serving.tls to the same, or shut it down first (`serve shutdown`)"
        )


def start_proxy(serving: ServingConfig, options: dict[str, Any]) -> None:
    """Start Ray Serve's proxy in the cluster that this process is in, and print what to know about who can reach it.

    Raises UserError where Serve already runs there and listens elsewhere.
    """
    from ray import serve
    from ray.serve.context import _get_global_client  # there is no public way to the options of a Serve that runs

    client = _get_global_client(raise_if_no_controller_running=False)
    check_running(options, client.http_config if client else None)
    for caution in cautions(serving):
        print(f"warning: {caution}", file=sys.stderr, flush=True)
    serve.start(http_options=options)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
