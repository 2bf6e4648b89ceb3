"""Certificates of a broker's own: an authority in two files, and what it signs for a machine.

Whoever has `ca.key` can be this broker for all who trust `ca.crt`, so it stays where it was made.
The package `cryptography` is the extra `tls`.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relayq import clock
from relayq.embedded.processes import write
from relayq.embedded.settings import Encryption
from relayq.errors import RelayqError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509 import Certificate

_YEAR = datetime.timedelta(days=365)
_AUTHORITY_LASTS = 20 * _YEAR
_SERVER_LASTS = 10 * _YEAR
#: With less left a start makes a new certificate: brokers run for months.
_SOON = 2 * _YEAR


class Authority:
    """The authority of a folder, made when it isn't there: `ca.crt` for everybody, `ca.key`."""

    def __init__(self, folder: Path) -> None:
        _check_installed()
        self.certificate = folder / "ca.crt"
        self._key_file = folder / "ca.key"
        if not self.certificate.exists():
            self._make()

    def issue(self, folder: Path, names: Sequence[str]) -> Encryption:
        """Have `server.crt` and `server.key` for these names and addresses in a folder.

        Those that are there stay if they have the names, are signed by this authority, and last.
        """
        made = Encryption(folder / "server.crt", folder / "server.key", self.certificate)
        if not self._is_good(made, names):
            key = _new_key()
            certificate = self._signed(f"relayq broker {names[0]}", key, names)
            write(made.key, _key_text(key))
            write(made.certificate, _text(certificate))
        return made

    def _make(self) -> None:
        key = _new_key()
        certificate = self._signed("relayq broker's own authority", key, (), by=key)
        write(self._key_file, _key_text(key))
        write(self.certificate, _text(certificate))

    @cached_property
    def _own(self) -> Certificate:
        from cryptography import x509

        try:
            return x509.load_pem_x509_certificate(self.certificate.read_bytes())
        except (OSError, ValueError) as error:
            raise _unusable(self.certificate, error) from error

    @cached_property
    def _key(self) -> ec.EllipticCurvePrivateKey:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        key: ec.EllipticCurvePrivateKey
        try:
            # It is one of ours.
            key = load_pem_private_key(self._key_file.read_bytes(), password=None)  # type: ignore[assignment]
        except (OSError, ValueError) as error:
            raise _unusable(self._key_file, error) from error
        if key.public_key() != self._own.public_key():
            raise _unusable(self._key_file, "it is the key of another one")
        return key

    def _is_good(self, made: Encryption, names: Sequence[str]) -> bool:
        from cryptography import x509
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            # A start that was cut off between the two files has replaced only the key.
            key = load_pem_private_key(made.key.read_bytes(), password=None).public_key()
            found = x509.load_pem_x509_certificate(made.certificate.read_bytes())
            found.verify_directly_issued_by(self._own)
            named = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return False
        left = found.not_valid_after_utc - _now()
        return key == found.public_key() and left > _SOON and set(_general(names)) <= set(named)

    def _signed(
        self,
        subject: str,
        key: ec.EllipticCurvePrivateKey,
        names: Sequence[str],
        by: ec.EllipticCurvePrivateKey | None = None,
    ) -> Certificate:
        """Return a certificate for a key: of a server with names, else of the authority itself."""
        from cryptography import x509
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject[:64])])
        issuer, signer = (called, by) if by is not None else (self._own.subject, self._key)
        builder = (
            x509.CertificateBuilder()
            .subject_name(called)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            # Clocks of machines differ.
            .not_valid_before(_now() - datetime.timedelta(days=1))
            .not_valid_after(_now() + (_AUTHORITY_LASTS if by is not None else _SERVER_LASTS))
            .add_extension(x509.BasicConstraints(by is not None, 0 if by else None), critical=True)
            .add_extension(_usage(is_authority=by is not None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
                critical=False,
            )
        )
        if by is None:
            usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            builder = builder.add_extension(
                x509.SubjectAlternativeName(_general(names)), critical=False
            ).add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        return builder.sign(signer, SHA256())


def _unusable(file: Path, why: object) -> RelayqError:
    return RelayqError(
        f"{file} can't sign a certificate: {why}",
        hint="put it back from a copy; or delete ca.crt, too, and copy the new one to all machines",
    )


def _check_installed() -> None:
    from importlib.util import find_spec

    if find_spec("cryptography") is None:
        raise RelayqError(
            "certificates can't be made here: the package cryptography is missing",
            hint="pip install 'relayq[tls]'",
        )


def _new_key() -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _usage(*, is_authority: bool) -> Any:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(names: Sequence[str]) -> list[Any]:
    """Return names and addresses as a certificate has them."""
    from cryptography import x509

    made: list[Any] = []
    for name in dict.fromkeys(names):
        try:
            made.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            made.append(_dns_name(name))
    return made


def _dns_name(name: str) -> Any:
    from cryptography import x509

    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise RelayqError(
            f"{name!r} can't stand in a certificate", hint="--tls-name takes it in ASCII: xn--..."
        ) from error


def _now() -> datetime.datetime:
    return datetime.datetime.fromtimestamp(clock.now(), datetime.UTC)


def _text(certificate: Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _key_text(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
