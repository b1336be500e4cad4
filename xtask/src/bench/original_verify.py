"""Verifies NAME.sig.tbz with NAME.pem as the original's client does it."""
import hashlib
import sys
import tarfile
import tempfile

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

name = sys.argv[1]
with open(f"{name}.pem", "rb") as pem, tempfile.TemporaryDirectory() as directory:
    key = load_pem_public_key(pem.read())
    with tarfile.open(f"{name}.sig.tbz", "r:bz2") as archive:
        members = archive.getnames()
        archive.extractall(directory)
    inner = next(member for member in members if member.endswith(".tbz"))
    signature = next(member for member in members if member.endswith(".sig"))
    digest = hashlib.sha256()
    with open(f"{directory}/{inner}", "rb") as archive:
        while piece := archive.read(1 << 20):
            digest.update(piece)
    with open(f"{directory}/{signature}") as text:
        key.verify(bytes.fromhex(text.read()), digest.digest(), PKCS1v15(), SHA256())
