"""Signs the request of a server as the original's old client does (sign-csr), rightly and wrongly.

The authority is `ca.pem` with `ca-key.pem` in the working directory.
"""

import datetime
import hashlib
import random

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def good(csr):
    return sign(csr)


def without_a_name(csr):
    """What the original's sign-csr made: it used its profile of client certificates."""
    return sign(csr, host=None)


def for_another_host(csr):
    return sign(csr, host="elsewhere.example")


def of_another_key(_csr):
    return sign(request("localhost"))


def of_another_authority(csr):
    return sign(csr, signer=rsa.generate_private_key(65537, 2048))


def sign(csr, host="localhost", signer=None):
    csr = x509.load_pem_x509_csr(csr.encode())
    with open("ca.pem", "rb") as file:
        authority = x509.load_pem_x509_certificate(file.read())
    if signer is None:
        with open("ca-key.pem", "rb") as file:
            signer = serialization.load_pem_private_key(file.read(), None)
    now = datetime.datetime.now(datetime.timezone.utc)
    # It computed them before it had set a key.
    key_id = hashlib.sha1(b"").digest()
    builder = (
        x509.CertificateBuilder()
        .subject_name(csr.subject)
        .issuer_name(authority.subject)
        .public_key(csr.public_key())
        .serial_number(random.randint(50_000_000, 100_000_000))
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=False)
        .add_extension(digital_signature(), critical=False)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
            ),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier(key_id), critical=False)
    )
    if host is not None:
        builder = builder.add_extension(names(host), critical=False)
    return pem(builder.sign(signer, hashes.SHA256()))


def request(host):
    """Makes a request by a new key, for this host if any."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Server")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if host is not None:
        builder = builder.add_extension(names(host), critical=False)
    return pem(builder.sign(rsa.generate_private_key(65537, 2048), hashes.SHA256()))


def names(host):
    return x509.SubjectAlternativeName([x509.DNSName(host)])


def digital_signature():
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    never = ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(digital_signature=True, **dict.fromkeys((*others, *never), False))


def pem(value):
    return value.public_bytes(serialization.Encoding.PEM).decode()
