"""TLS for every transport: whom we trust, who we say we are, and what a failed handshake means."""

from __future__ import annotations

import ssl

from tokenswarm.errors import OptionError, RequestError


def tls_context(insecure: bool, ca_bundle: str | None, client_cert: tuple[str, ...] = ()) -> ssl.SSLContext:
    """One context for a whole run (making one is slow): verifies unless `insecure`. `client_cert`: the file of our own
    certificate, and that of its key where it is another. Raises OptionError."""
    try:
        context = ssl.create_default_context(cafile=ca_bundle)
    except OSError as error:
        raise OptionError(f"--ca-bundle {ca_bundle!r}: not a PEM file of certificates ({error})") from None
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if client_cert:
        try:
            key = client_cert[1] if len(client_cert) > 1 else None
            context.load_cert_chain(client_cert[0], key, lambda: b"")  # an encrypted key is refused, not asked about
        except OSError as error:
            named = ",".join(client_cert)
            raise OptionError(
                f"--client-cert {named!r}: not a PEM certificate with its key, unencrypted ({error.strerror or error})"
            ) from None
    context.set_alpn_protocols(["http/1.1"])
    return context


def tls_error(host: str, error: ssl.SSLError) -> RequestError:
    """Why a TLS handshake failed, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = (
            f"the certificate of {host} was refused: {error.verify_message}; "
            "name its authority with --ca-bundle FILE, or give --insecure to trust any"
        )
    elif "WRONG_VERSION_NUMBER" in str(error) or "HTTP_REQUEST" in str(error):
        text = f"{host} does not speak TLS on this port; did you mean http://?"
    else:
        text = f"TLS handshake with {host} failed: {error.reason or error}"
    return RequestError("tls", text)


def tls_broke(error: ssl.SSLError) -> RequestError:
    """Why TLS ended after the handshake. Since TLS 1.3 that is where a server refuses a client's certificate."""
    text = f"TLS broke in mid-stream: {error.reason or error}"
    if "CERTIFICATE_REQUIRED" in str(error):
        text = "the server asks for a client certificate; give it with --client-cert FILE"
    return RequestError("tls", text)
