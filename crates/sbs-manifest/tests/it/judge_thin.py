"""Judges a thin manifest with Python's library and `cryptography`: MANIFEST PUBLIC_KEY.

Prints the Dockerfile's path and id, the commit, and the digest of the full archive.
"""

import hashlib
import io
import json
import subprocess
import sys
import tarfile

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding


def unpack(archive):
    tar = subprocess.run(["zstd", "-dc"], input=archive, stdout=subprocess.PIPE, check=True).stdout
    members = tarfile.open(fileobj=io.BytesIO(tar)).getmembers()
    read = tarfile.open(fileobj=io.BytesIO(tar)).extractfile
    return [(m.name, read(m).read() if m.isfile() else None) for m in members]


def git_id(kind, content, algorithm):
    return hashlib.new(algorithm, b"%s %d\0" % (kind, len(content)) + content).hexdigest()


def tree_id(prefix, items):
    """The id of a directory from what is directly in it; closed directories stand by their id."""
    tree = b""
    for mode, path, listed in items:
        if path.startswith(prefix) and "/" not in path[len(prefix):]:
            below = path + "/"
            if mode == "040000" and dockerfile.startswith(below):
                assert tree_id(below, items) == listed, f"tree of {path}"
            name = path[len(prefix):].encode("utf-8", "surrogateescape")
            tree += mode.lstrip("0").encode() + b" " + name + b"\0" + bytes.fromhex(listed)
    return git_id(b"tree", tree, algorithm)


(name, inner), (_, signature) = unpack(open(sys.argv[1], "rb").read())
key = serialization.load_pem_public_key(open(sys.argv[2], "rb").read())
digest = hashlib.sha256(inner).digest()
key.verify(bytes.fromhex(signature.decode()), digest, padding.PKCS1v15(), hashes.SHA256())

entries = dict(unpack(inner))
record = json.loads(entries["data/build.json"])
dockerfile = record["engine"]["dockerfile"]
source = record["source"]
algorithm = "sha1" if len(source["commit"]) == 40 else "sha256"
assert git_id(b"commit", entries["data/commit"], algorithm) == source["commit"], "commit"
assert entries["data/commit"].startswith(b"tree %s\n" % source["tree"].encode()), "tree of commit"
lines = entries["data/tree"].decode("utf-8", "surrogateescape").split("\0")[:-1]
items = []
for line in lines:
    facts, path = line.split("\t", 1)
    mode, _, listed = facts.split(" ")
    items.append((mode, path, listed))
assert tree_id("", items) == source["tree"], "tree"
blob = git_id(b"blob", entries["git/" + dockerfile], algorithm)
assert (blob, dockerfile) in [(listed, path) for _, path, listed in items], "Dockerfile"
full = json.loads(entries["data/full.json"])
assert full["schema"] == 1 and full["name"] == name.replace(".thin.tar.zst", ".tbz"), "full"
print(dockerfile, blob, source["commit"], full["digest"])
