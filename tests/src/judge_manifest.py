"""Reads a manifest by the documented format and prints what is in it as JSON."""

import hashlib
import io
import json
import os
import re
import sys
import tarfile

path = sys.argv[1]
name = os.path.basename(path).removesuffix(".sig.tbz")
with tarfile.open(path, "r:bz2") as outer:
    members = outer.getmembers()
    assert sorted(m.name for m in members) == [name + ".sig", name + ".tbz"], members
    assert all(m.isfile() for m in members), members
    signature = outer.extractfile(name + ".sig").read().decode()
    inner = outer.extractfile(name + ".tbz").read()
assert re.fullmatch("[0-9a-f]{512,}", signature), signature

entries, names, files = {}, [], {}
with tarfile.open(fileobj=io.BytesIO(inner), mode="r:bz2") as archive:
    for member in archive:
        parts = member.name.split("/")
        assert parts[0] in ("data", "git"), member.name
        assert ".." not in parts and "." not in parts and "" not in parts, member.name
        assert member.name not in entries, member.name
        assert (member.uid, member.gid) == (0, 0), member.name
        if member.isfile():
            files[member.name] = archive.extractfile(member).read()
            kind, content = "file", hashlib.sha256(files[member.name]).hexdigest()
        else:
            assert member.isdir(), member.name
            kind, content = "directory", ""
        names.append(member.name)
        entry = {"kind": kind, "mode": member.mode, "content": content, "time": int(member.mtime)}
        entries[member.name] = entry
assert names == sorted(names, key=lambda n: n.encode()), names
print(
    json.dumps(
        {
            "entries": entries,
            "log": files["data/build.log"].decode(),
            "name": name,
            "record": json.loads(files["data/build.json"]),
        }
    )
)
