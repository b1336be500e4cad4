"""The parts of a manifest, each open to damage: keys, tar headers, git objects.

Nothing here is random and nothing looks at the clock. Standard library only.
"""

import base64
import bz2
import copy
import hashlib
import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
TIME = 1_700_000_000


# --- RSA (RFC 8017), for keys that protect nothing ---


class Key:
    """An RSA key out of a PKCS#8 file (RFC 5958)."""

    def __init__(self, file):
        lines = (HERE / file).read_text().split("\n")
        der = base64.b64decode("".join(line for line in lines if not line.startswith("-")))
        wrapped = _items(_items(der)[0])
        numbers = [int.from_bytes(item, "big") for item in _items(_items(wrapped[2])[0])]
        _, self.n, self.e, self.d = numbers[:4]

    def raw(self, block):
        """Signs a padded message, whatever it is."""
        return pow(int.from_bytes(block, "big"), self.d, self.n).to_bytes(384, "big")

    def sign(self, message, digest="sha256", null=b"\x05\x00", behind=b""):
        """RSASSA-PKCS1-v1_5, and what is nearly that."""
        number = {"sha256": b"\x01", "sha512": b"\x03"}[digest]
        oid = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02" + number
        hashed = hashlib.new(digest, message).digest()
        info = _sequence(_sequence(oid + null) + b"\x04" + bytes([len(hashed)]) + hashed)
        filling = 384 - 3 - len(info) - len(behind)
        return self.raw(b"\x00\x01" + b"\xff" * filling + b"\x00" + info + behind)

    def sign_pss(self, message):
        """RSASSA-PSS with SHA-256 and a salt of zeros."""
        salt = bytes(32)
        inner = hashlib.sha256(bytes(8) + hashlib.sha256(message).digest() + salt).digest()
        block = bytes(384 - 2 - 64) + b"\x01" + salt
        mask = b"".join(hashlib.sha256(inner + i.to_bytes(4, "big")).digest() for i in range(12))
        masked = bytearray(a ^ b for a, b in zip(block, mask))
        masked[0] &= 0x7F
        return self.raw(bytes(masked) + inner + b"\xbc")


def _items(der):
    """Splits the content of a DER value into the contents of what follows one another."""
    items = []
    while der:
        size, at = der[1], 2
        if size & 0x80:
            at = 2 + (size & 0x7F)
            size = int.from_bytes(der[2:at], "big")
        items.append(der[at : at + size])
        der = der[at + size :]
    return items


def _sequence(content):
    return b"\x30" + bytes([len(content)]) + content


KEY = Key("key.pem")
OTHER_KEY = Key("other-key.pem")
PUBLIC = (HERE / "public.pem").read_text()


# --- tar (POSIX.1-2001 ustar), as docs/formats/manifest.md has it ---

FIELDS = {
    "name": (0, 100), "mode": (100, 8), "uid": (108, 8), "gid": (116, 8), "size": (124, 12),
    "mtime": (136, 12), "checksum": (148, 8), "flag": (156, 1), "link": (157, 100),
    "magic": (257, 8), "uname": (265, 32), "gname": (297, 32), "major": (329, 8),
    "minor": (337, 8), "prefix": (345, 155),
}
END = bytes(1024)


def entry(name, content=b"", executable=False, **fields):
    """An entry with this server's attributes, but for the fields that are given as bytes."""
    name = name.encode() if isinstance(name, str) else name
    folder = name.endswith(b"/") and "flag" not in fields
    values = {
        "name": name,
        "mode": b"0000755\0" if folder or executable else b"0000644\0",
        "uid": b"0000000\0",
        "gid": b"0000000\0",
        "size": b"%011o\0" % len(content),
        "mtime": b"%011o\0" % TIME,
        "flag": b"5" if folder else b"0",
        "magic": b"ustar\x0000",
    }
    values.update(fields)
    header = bytearray(512)
    for field, value in values.items():
        start, size = FIELDS[field]
        assert len(value) <= size, (field, value)
        header[start : start + len(value)] = value
    if "checksum" not in fields:
        header[148:156] = b" " * 8
        header[148:156] = b"%07o\0" % sum(header)
    return bytes(header) + content + bytes(-len(content) % 512)


def long_name(name, flag=b"L"):
    """The entry with which GNU tar names the next one."""
    return entry("././@LongLink", name + b"\0", flag=flag, mtime=b"%011o\0" % 0)


def pax(*records):
    """An extended header for the next entry; records are `key=value`."""
    return entry("PaxHeaders/z", b"".join(map(pax_record, records)), flag=b"x")


def pax_record(pair):
    length = len(pair) + 3
    while len(b"%d %s\n" % (length, pair)) != length:
        length += 1
    return b"%d %s\n" % (length, pair)


# --- git objects ---


def object_id(kind, content):
    return hashlib.sha1(b"%s %d\0" % (kind, len(content)) + content).hexdigest()


class Tree:
    """A directory of a commit: names to bytes (a file), or to a tuple of mode and content."""

    def __init__(self, nodes):
        self.nodes = nodes

    def listing(self, prefix=b""):
        """What `git ls-tree -r -t -z --full-tree` prints, and the tree's id."""
        lines, tree = b"", b""
        in_order = sorted(
            self.nodes.items(), key=lambda node: node[0] + b"/" * isinstance(node[1], Tree)
        )
        for name, node in in_order:
            below = b""
            if isinstance(node, Tree):
                mode, kind = b"40000", b"tree"
                below, id = node.listing(prefix + name + b"/")
            else:
                mode, content = node if isinstance(node, tuple) else (b"100644", node)
                kind = b"commit" if mode == b"160000" else b"blob"
                id = "5" * 40 if kind == b"commit" else object_id(b"blob", content)
            lines += b"%06d %s %s\t%s\0" % (int(mode), kind, id.encode(), prefix + name) + below
            tree += mode + b" " + name + b"\0" + bytes.fromhex(id)
        return lines, object_id(b"tree", tree)


def small_tree(**more):
    """The files from which the good manifest is made."""
    nodes = {
        b"Dockerfile": b"FROM debian:12\n",
        b"lib.rs": b"mod lib;\n",
        b"lib": Tree({b"a.rs": b"// a\n"}),
        b"link": (b"120000", b"../../etc/passwd"),
        b"run.sh": (b"100755", b"#!/bin/sh\n"),
    }
    nodes.update((name.encode(), node) for name, node in more.items())
    return Tree(nodes)


# --- a manifest ---


class Build:
    """What goes into a manifest. Every part may be changed before it is packed."""

    def __init__(self, tree=None):
        self.listing, self.tree = (tree or small_tree()).listing()
        who = b"A U Thor <a@example> %d +0100" % TIME
        self.commit = b"tree %s\nauthor %s\ncommitter %s\n\nmessage\n" % (
            self.tree.encode(), who, who,
        )
        self.log = b"2026-01-02 03:04:05 INFO build: done\n"
        self.record = copy.deepcopy(RECORD)
        self.name_commit()
        # The entries under git/, by name.
        self.source = {
            "git/Dockerfile": entry("git/Dockerfile", b"FROM debian:12\n"),
            "git/lib.rs": entry("git/lib.rs", b"mod lib;\n"),
            "git/lib/": entry("git/lib/"),
            "git/lib/a.rs": entry("git/lib/a.rs", b"// a\n"),
            "git/link": entry("git/link", b"../../etc/passwd"),
            "git/run.sh": entry("git/run.sh", b"#!/bin/sh\n", executable=True),
        }

    def name_commit(self):
        """Makes the record that of the commit."""
        commit = object_id(b"commit", self.commit)
        tag = "v1-" + commit[:7]
        name = f"r.example.app.{tag}.2026-01-02_03-04-05.000006"
        self.record["source"].update(commit=commit, tree=self.tree)
        self.record["image"]["reference"] = f"r.example/app:{tag}"
        self.record.update(
            image_tag=tag, build_name=name, manifest_public_key=f"manifest.{name}-public.pem"
        )
        self.name = "manifest." + name

    def json(self):
        return json.dumps(self.record, indent=2).encode() + b"\n"

    def fixed(self, json=None):
        """The entries before the source, by name."""
        return {
            "data/": entry("data/"),
            "data/build.json": entry("data/build.json", self.json() if json is None else json),
            "data/build.log": entry("data/build.log", self.log),
            "data/commit": entry("data/commit", self.commit),
            "data/tree": entry("data/tree", self.listing),
            "git/": entry("git/"),
        }

    def entries(self, json=None):
        return list(self.fixed(json).values()) + list(self.source.values())

    def tar(self, *more, json=None):
        """The inner archive, not compressed, with more entries at its end."""
        return b"".join(self.entries(json)) + b"".join(more) + END

    def inner(self):
        return bz2.compress(self.tar())

    def sealed(self, tar):
        """Signs an inner archive, whatever it holds, and wraps it."""
        return self.wrapped(bz2.compress(tar))

    def wrapped(self, inner):
        return self.outer(inner, sign(inner))

    def outer(self, inner, signature):
        return bz2.compress(b"".join(self.members(inner, signature)) + END, 1)

    def members(self, inner, signature):
        """The two members of the outer archive."""
        return [entry_of(self.name + ".tbz", inner), entry_of(self.name + ".sig", signature)]


class Thin(Build):
    """A thin manifest, open to damage. Its Dockerfile is below the top."""

    def __init__(self):
        super().__init__(small_tree(d=Tree({
            b"Dockerfile": b"FROM debian:12\n", b"notes": b"", b"x": Tree({b"y": b"y"}),
        })))
        self.record["engine"]["dockerfile"] = "d/Dockerfile"
        self.whole = self.listing
        self.listing = b"".join(
            line + b"\0" for line in self.whole.split(b"\0")[:-1]
            if not line.split(b"\t")[1].startswith((b"lib/", b"d/x/"))
        )
        self.full = {"digest": "sha256:" + "03" * 32, "name": self.name + ".tbz", "schema": 1,
                     "size": 1234}
        self.source = {
            "git/d/": entry("git/d/"),
            "git/d/Dockerfile": entry("git/d/Dockerfile", b"FROM debian:12\n"),
        }

    def fixed(self, json=None):
        entries = super().fixed(json)
        top = entries.pop("git/")
        entries["data/full.json"] = entry("data/full.json", self.full_json())
        entries["git/"] = top
        return entries

    def full_json(self):
        return json.dumps(self.full, separators=(",", ":")).encode()

    def sealed(self, tar):
        return self.wrapped(zstd(tar))

    def outer(self, inner, signature):
        return zstd(b"".join(self.members(inner, signature)) + END)

    def members(self, inner, signature):
        return [entry_of(self.name + ".thin.tar.zst", inner),
                entry_of(self.name + ".thin.sig", signature)]


def zstd(content, window_log=17):
    """A frame of blocks that are not compressed (RFC 8878, 3.1.1)."""
    blocks = [content[at : at + (1 << 17)] for at in range(0, len(content), 1 << 17)] or [b""]
    frame = b"\x28\xb5\x2f\xfd\0" + bytes([(window_log - 10) << 3])
    for number, block in enumerate(blocks, 1):
        frame += (len(block) << 3 | (number == len(blocks))).to_bytes(3, "little") + block
    return frame


def zstd_bomb(count, end=b""):
    """Zeros, 128 KiB for each block of four bytes, and an end."""
    frame = b"\x28\xb5\x2f\xfd\0" + bytes([7 << 3])
    repeat = (1 << 17 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    return frame + repeat * count + (len(end) << 3 | 1).to_bytes(3, "little") + end


def entry_of(name, content, **fields):
    assert len(name) <= 100
    return entry(name, content, **fields)


def sign(inner, key=KEY):
    """The content of the `.sig` member: over the digest, which is hashed once more."""
    return key.sign(hashlib.sha256(inner).digest()).hex().encode()


RECORD = {
    "build_image_tag": "",
    "build_name": "",
    "image_tag": "",
    "manifest_key_gen": "soft_crypto",
    "manifest_public_key": "",
    "status": "image pushed",
    "bases": [{"digest": "sha256:" + "01" * 32, "reference": "docker.io/library/debian:12"}],
    "engine": {
        "arguments": {"A": "B"},
        "context": "",
        "dockerfile": "Dockerfile",
        "isolation": "oci (runc)",
        "name": "buildah",
        "network": "none",
        "storage_driver": "overlay",
        "version": "1.28.2",
    },
    "finished_at": "2026-01-02T03:05:05Z",
    "image": {
        "digest": "sha256:" + "02" * 32,
        "public_key_pem": "-----BEGIN PUBLIC KEY-----\n",
        "reference": "",
    },
    "manifest_public_key_pem": PUBLIC,
    "schema": "sbs-build-record-1",
    "server_version": "0.1.0",
    "source": {
        "commit": "",
        "commit_time": TIME,
        "reference": "main",
        "tree": "",
        "url": "git@git.example:u/r.git",
    },
    "started_at": "2026-01-02T03:04:05Z",
}
