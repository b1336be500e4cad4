"""Reads a state image, from docs/formats/state.md and nothing else: a second implementation.

usage: read_state.py bytes|records ROOT-SECRET-HEX SECRET-HEX FILE

Needs the package `cryptography` (Debian: python3-cryptography). For tests: the secrets stand on
the command line, where others can see them.
"""

import hashlib
import hmac
import json
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ORDER = ["instance.json", "definition.json", "keys.json", "builds.json", "known-hosts", "notary-roots.json"]


class Refused(Exception):
    pass


def need(condition, what):
    if not condition:
        raise Refused(what)


def prf(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def expand(key, info, length):
    output = block = b""
    number = 1
    while len(output) < length:
        block = prf(key, block + info + bytes([number]))
        output += block
        number += 1
    return output[:length]


def open_bytes(file, root, secret):
    need(len(file) >= 48 and file[:8] == b"SBS-SEAL", "magic")
    version, suite, meta_length = struct.unpack(">HHI", file[8:16])
    need((version, suite) == (1, 1), "version or suite")
    need(meta_length <= 16384 and len(file) >= 104 + meta_length, "length of the header")
    kid = file[16:24]
    epoch, export_seq, created_ms = struct.unpack(">QQQ", file[24:48])
    header, rest = file[: 48 + meta_length], file[48 + meta_length :]

    need(prf(root, b"sbs.state/v1 kid")[:8] == kid, "server key")
    server = prf(root, b"sbs.state/v1 server share")
    client = prf(b"sbs.state/v1 client share", secret)
    key = expand(prf(b"sbs.state/v1 combine", server + client), b"sbs.state/v1 payload", 32)
    context = b"sbs.state/v1 header " + hashlib.sha256(header).digest()
    salt, commitment, rest = rest[:24], rest[24:56], rest[56:]
    label = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0"
    okm = expand(key, label + salt + context, 76)
    need(hmac.compare_digest(okm[44:], commitment), "commitment")

    cipher, base = AESGCM(okm[:32]), int.from_bytes(okm[32:44], "big")
    content, number = b"", 0
    while True:
        chunk, rest = rest[:16400], rest[16400:]
        need(len(chunk) >= 16, "missing last chunk")
        try:
            content += cipher.decrypt((base ^ number).to_bytes(12, "big"), chunk, None)
        except InvalidTag:
            raise Refused("chunk %d" % number)
        number += 1
        if len(chunk) < 16400:
            break
    return {
        "content": content.hex(),
        "created_ms": created_ms,
        "epoch": epoch,
        "export_seq": export_seq,
        "meta": json.loads(header[48:]),
    }


def padded(length):
    exponent = max(length, 2).bit_length() - 1
    kept = exponent.bit_length()
    step = max(4096, 1 << max(0, exponent - kept))
    return -(-max(length, 1) // step) * step


def read_records(content):
    records, at = {}, 0
    while "manifest.json" not in records:
        (name_length,) = struct.unpack(">H", content[at : at + 2])
        name = content[at + 2 : at + 2 + name_length].decode()
        at += 2 + name_length
        (length,) = struct.unpack(">Q", content[at : at + 8])
        need(len(content) >= at + 8 + length, "cut")
        need(name not in records, "twice")
        records[name] = content[at + 8 : at + 8 + length]
        at += 8 + length
    need(content[at:] == bytes(padded(at) - at), "padding")
    listed = json.loads(records.pop("manifest.json"))
    found = [
        {
            "bytes": len(record),
            "name": name,
            "schema": 1,
            "sha256": "sha256:" + hashlib.sha256(record).hexdigest(),
        }
        for name, record in records.items()
    ]
    need(listed["records"] == found, "other records than listed")
    need([name for name in ORDER if name in records] == list(records), "order")
    return listed, records


def main(form, root, secret, path):
    with open(path, "rb") as file:
        opened = open_bytes(file.read(), bytes.fromhex(root), bytes.fromhex(secret))
    if form == "records":
        listed, records = read_records(bytes.fromhex(opened.pop("content")))
        for field in ("epoch", "export_seq"):
            need(listed[field] == opened[field], field)
        opened["records"] = {name: record.hex() for name, record in records.items()}
    print(json.dumps(opened))


try:
    main(*sys.argv[1:])
except (Refused, struct.error, UnicodeDecodeError, ValueError) as error:
    sys.exit("refused: %s" % error)
