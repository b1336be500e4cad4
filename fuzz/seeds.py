#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets, `fuzz/corpus/<target>`; the same each time."""

import bz2
import json
import pathlib
import shutil
import sys

sys.dont_write_bytecode = True

HERE = pathlib.Path(__file__).resolve().parent
MANIFESTS = HERE.parent / "tests" / "data" / "manifests"
sys.path.insert(0, str(MANIFESTS))

from craft import Build, entry, long_name, pax, small_tree


def outer():
    yield "good", (MANIFESTS / "good.sig.tbz").read_bytes()
    for defect in ["outer-third-member", "outer-second-stream", "outer-bomb",
                   "outer-symlink-member", "outer-truncated", "signature-line-end"]:
        yield defect, (MANIFESTS / defect / "manifest.sig.tbz").read_bytes()


def inner():
    build = Build()
    file = entry("git/z", b"12345678")
    yield "good", build.tar()
    yield "link", build.tar(entry("git/z", flag=b"2", link=b"/etc/passwd"))
    yield "extended", build.tar(pax(b"path=git/y", b"size=8", b"mtime=1.5"), file)
    yield "long-name", build.tar(long_name(b"git/" + b"z" * 120), entry("git/" + "z" * 96, b"x"))
    yield "ssh", build.tar(entry("root_ssh/"), entry("root_ssh/id", b"x"))
    yield "base-256", build.tar(entry("git/z", b"x", size=b"\x80" + (1 << 33).to_bytes(11, "big")))
    yield "prefix", build.tar(entry("git/z", b"x", magic=b"ustar  \0", prefix=b"../.."))
    yield "git-directory", build.tar(entry("git/.git::$INDEX_ALLOCATION", b"x"))
    yield "empty", bytes(1024)
    module = Build(small_tree(module=(b"160000", b"")))
    module.source["git/module/"] = entry("git/module/")
    module.source["git/module/a"] = entry("git/module/a", b"x")
    module.source["git/run.sh"] = module.source.pop("git/run.sh")
    yield "submodule", module.tar()


def bunzip2():
    words = " ".join(str(number * number % 997) for number in range(2000)).encode()
    yield "empty", bz2.compress(b"")
    yield "letter", bz2.compress(b"a")
    yield "runs", bz2.compress(b"a" * 4 + b"b" * 259 + b"c" * 5000 + b"aaab", 1)
    yield "words", bz2.compress(words, 5)
    yield "all-bytes", bz2.compress(bytes(range(256)) * 3, 9)
    yield "streams", bz2.compress(b"one", 1) + bz2.compress(b"", 2) + bz2.compress(b"two", 9)
    yield "garbage", bz2.compress(b"one") + b"BZh"
    yield "period", bz2.compress(b"abcab" * 300, 3)


def record():
    build = Build()
    yield "good", build.json()
    build.record["source"].update(submodules={"lib/x": "5" * 40}, host_key="SHA256:x")
    build.record["bases"][0]["platform_digest"] = "sha256:" + "03" * 32
    yield "more", build.json()
    yield "doubled", build.json().replace(b"{", b'{"later": [{"a": 1, "a": 2}],', 1)
    yield "status", b'{"status":"success","build_name":"a","root_ssh_enabled":false}'


def definition():
    secret = "HUNTER2" * 4
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\n" + secret + "\n"
    base = {
        "RUNTIME_TYPE": "classic", "GITHUB_URL": "git@github.com:u/r.git", "GITHUB_KEY": key,
        "DOCKER_REPO": "ns/app", "DOCKER_USER": "u", "DOCKER_PASSWORD": secret,
        "IMAGE_TAG_PREFIX": "v1", "DOCKER_CONTENT_TRUST_BASE": "False",
        "DOCKER_PUSH_SERVER": "registry.example:5000",
    }
    yield "ssh", json.dumps(base).encode()
    more = {
        "ARG": {"A": "B"}, "DOCKERFILE_PATH": "d/Dockerfile", "DOCKER_BUILD_PATH": "d",
        "DOCKER_BASE_SERVER": "docker.io", "DOCKER_BASE_USER": "b", "SECRET": secret,
        "DOCKER_BASE_PASSWORD": secret, "GITHUB_BRANCH": "main",
        "GITHUB_RECURSE_SUBMODULES": "True", "REPO_ID": "r", "BUILD_IMAGE_TAG": "1.3.0.3",
    }
    yield "more", json.dumps(base | more).encode()
    https = base | {"GITHUB_URL": f"https://u:{secret}@git.example/u/r"}
    yield "https", json.dumps(https).encode()
    token = base | {"GITHUB_URL": f"https://{secret}@git.example/u/r"}
    yield "token", json.dumps(token).encode()
    yield "doubled", b'{"ARG":{"A":1,"A":2}}'
    yield "nothing", b"{}"


def image_reference():
    for number, text in enumerate([
        "debian:12", "r.example:5000/ns/app:v1-0a1b2c3", "localhost/app",
        "[::1]:5000/app@sha256:" + "01" * 32, "ghcr.io/a/b__c/d-e.f:latest@sha256:" + "ab" * 32,
    ]):
        yield str(number), text.encode()


def git_url():
    for number, text in enumerate([
        "https://git.example/u/r.git", "https://u:p@git.example:8443/u/r", "git@git.example:u/r.git",
        "ssh://git@[::1]:2222/u/r.git", "ext::sh -c id", "-oProxyCommand=id", "refs/tags/v1",
        "0a1b2c3d" * 5, "file:///etc",
        "https://u:HUNTER2@git.example/u/r", "https://HUNTER2@git.example/u/r.git/",
        "https:/u:HUNTER2@git.example/r", "ssh://u:HUNTER2@git.example/r", "u:HUNTER2@git.example:r",
        "git@git.example:u/..", "https://git.example/.git", "ssh://git@git.example/srv/r/.git",
    ]):
        yield str(number), text.encode()


if __name__ == "__main__":
    shutil.rmtree(HERE / "corpus", ignore_errors=True)
    for target in [bunzip2, outer, inner, record, definition, image_reference, git_url]:
        folder = HERE / "corpus" / target.__name__
        folder.mkdir(parents=True)
        for name, content in target():
            (folder / name).write_bytes(content)
