"""Shows that client.py finds what it looks for.

    lies.py DIRECTORY

Tells the replies that each phase got once more, one lie in each round, and demands that the reply
with the lie is the first that is called wrong. Without a lie nothing may be called wrong, and every
request must have the bytes that the original's client sends.
"""

import base64
import hashlib
import http.server
import io
import json
import os
import sys
import tarfile
import threading

import certificates
import client
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

# How a reply, [code, content type, text], is changed. They get the notes of before the phase, too.


def code(value):
    return lambda reply, _notes: [value, *reply[1:]]


def kind(value):
    return lambda reply, _notes: [reply[0], value, reply[2]]


def text(value):
    return lambda reply, _notes: [*reply[:2], value]


def replaced(old, new):
    def lie(reply, _notes):
        assert old in reply[2], f"{old!r} is not in {reply[2]!r}"
        return [*reply[:2], reply[2].replace(old, new, 1)]

    return lie


def members(change, **values):
    """Sets members to these values, after `change` did what it does to the object."""

    def lie(reply, _notes):
        value = json.loads(reply[2])
        change(value)
        value.update(values)
        return [*reply[:2], json.dumps(value)]

    return lie


def member(**values):
    return members(lambda _value: None, **values)


def without(name):
    return members(lambda value: value.pop(name))


def appended(name, tail):
    return members(lambda value: value.update({name: value[name] + tail}))


def unsorted():
    def lie(reply, _notes):
        value = json.loads(reply[2])
        return [*reply[:2], json.dumps(dict(reversed(value.items())))]

    return lie


def with_secret(name):
    def lie(reply, notes):
        secret = notes["config"][name]
        return [*reply[:2], reply[2].replace('"status":"', f'"status":"{secret} ', 1)]

    return lie


def with_secret_in_text(name):
    return lambda reply, notes: [*reply[:2], reply[2] + notes["config"][name]]


# Manifests: packed and signed again, right but for one thing, by a key that is told instead.

PARTS_OF_A_MANIFEST = ("data/build.json", "data/build.log", "git", "git/Dockerfile")
KEY = rsa.generate_private_key(65537, 2048)
PEM = KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def pack(files, compression="bz2"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:" + compression) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def sign(message, scheme=None, digest=None):
    return KEY.sign(message, scheme or padding.PKCS1v15(), digest or hashes.SHA256()).hex()


def double_hash(inner):
    return sign(hashlib.sha256(inner).digest())


def pss(inner):
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    return sign(hashlib.sha256(inner).digest(), scheme)


def packed(signature=double_hash, parts=PARTS_OF_A_MANIFEST, outer=lambda files: files, **how):
    """Makes another manifest of the same name."""

    def lie(reply, _notes):
        value = json.loads(reply[2])
        name = value["manifest_name"]
        inner = pack([(part, b"content") for part in parts])
        files = [(name + ".tbz", inner), (name + ".sig", signature(inner).encode())]
        value["encoded_manifest"] = base64.b64encode(pack(outer(files), **how)).decode()
        return [*reply[:2], json.dumps(value)]

    return lie


def changed_behind_the_signature(reply, _notes):
    """What the original's `--verify-test` does."""
    value = json.loads(reply[2])
    name = value["manifest_name"]
    outer = io.BytesIO(base64.b64decode(value["encoded_manifest"]))
    with tarfile.open(fileobj=outer, mode="r:bz2") as archive:
        signature = archive.extractfile(name + ".sig").read()
    inner = pack([(part, b"content") for part in (*PARTS_OF_A_MANIFEST, "git/fake")])
    outer = pack([(name + ".tbz", inner), (name + ".sig", signature)])
    value["encoded_manifest"] = base64.b64encode(outer).decode()
    return [*reply[:2], json.dumps(value)]


def secret_beside_the_seal(reply, notes):
    value = json.loads(reply[2])
    state = base64.b64decode(value["state"]) + notes["config"]["DOCKER_PASSWORD"].encode()
    value["state"] = base64.b64encode(state).decode()
    return [*reply[:2], json.dumps(value)]


# The lies: the phase, how the title of the request begins, what is told instead.

STATUS = "GET /image"
LOG = "GET /log/build"
ERROR = "GET /log/other"
PLAIN_ERROR = "GET /imagedigest"
UNKNOWN = "GET /manifest {"
KEY_OF = "GET /publickey"
MANIFEST = 'GET /manifest ""'
DIGEST = "GET /imagedigest"
JSON = "GET /config-json"
PYTHON = "GET /config-python"
STATE = "GET /state-image {}"
CSR = "GET /csr/localhost"

LIES = [
    # Codes.
    ("fresh", STATUS, code(201)),
    ("fresh", ERROR, code(200)),
    ("fresh", PLAIN_ERROR, code(200)),
    ("done", DIGEST, code(200)),
    ("done", JSON, code(200)),
    ("done", PYTHON, code(200)),
    ("building", "PUT /image", code(200)),
    # Replies that are one exact object.
    ("fresh", STATUS, text('{"status":"OK"}')),
    ("fresh", STATUS, text('{"status":"","build_name":""}')),
    ("fresh", "POST /image definition", text('{"status":"ok"}')),
    ("fresh", "POST /image definition", text('"OK"')),
    ("initialised", "PUT /image", text('{"status":"OK"}')),
    ("initialised", "PATCH /image definition", kind("text/html")),
    ("imported", "POST /state-image saved_state", text('{"status":"OK: imported"}')),
    ("done", "PATCH /image with_new_secret", text('{"status":"OK: async"}')),
    ("done", "PATCH /image with_new_secret", text("OK")),
    # Errors as objects.
    ("fresh", ERROR, text("there is no such log")),
    ("fresh", ERROR, kind("text/plain")),
    ("fresh", ERROR, kind(None)),
    ("fresh", ERROR, text('["no such log"]')),
    ("fresh", ERROR, member(status="")),
    ("fresh", ERROR, member(status=404)),
    ("fresh", ERROR, member(status="OK: nothing")),
    ("fresh", ERROR, without("status")),
    ("fresh", ERROR, without("code")),
    ("done", UNKNOWN, text("no such build")),
    ("building", "PUT /image", text("<html>409</html>")),
    ("done", "PATCH /image with another SECRET", with_secret("DOCKER_PASSWORD")),
    ("done", "PATCH /image with another SECRET", with_secret("SECRET")),
    ("done", "PATCH /image with another SECRET", member(status=client.OTHER_SECRET)),
    # Errors as text.
    ("fresh", PLAIN_ERROR, text('{"status":"no build"}')),
    ("fresh", PLAIN_ERROR, text("404")),
    ("fresh", PLAIN_ERROR, text("")),
    ("fresh", PLAIN_ERROR, kind("application/json")),
    ("failed", PLAIN_ERROR, with_secret_in_text("DOCKER_PASSWORD")),
    # The status.
    ("initialised", STATUS, member(status="cleaned up")),
    ("initialised", STATUS, member(build_image_tag="")),
    ("initialised", STATUS, member(root_ssh_enabled=False)),
    ("initialised", STATUS, without("image_tag")),
    ("initialised", STATUS, unsorted()),
    ("building", STATUS, member(build_name="a.name.before.its.time")),
    ("building", STATUS, member(status="cloning")),
    ("failed", STATUS, member(status="exiting due to a non-zero return value: 0, cmd: a")),
    ("failed", STATUS, member(status="exiting due to a non-zero return value: 1, cmd: ")),
    ("failed", STATUS, member(status="success")),
    ("done", STATUS, member(status="OK")),
    ("done", STATUS, member(image_tag="v1-abcdef")),
    ("done", STATUS, member(manifest_key_gen="")),
    ("done", STATUS, member(manifest_public_key="public.pem")),
    ("done", STATUS, appended("build_name", "/../../x")),
    ("done", STATUS, appended("build_name", "1")),
    ("done", STATUS, unsorted()),
    # The log.
    ("fresh", LOG, text('{"log":"a line"}')),
    ("done", LOG, text('{"log":""}')),
    ("done", LOG, text('{"log":["starting a build"]}')),
    ("done", LOG, replaced(",", ".")),
    ("done", LOG, replaced("  root       INFO    ", " root INFO ")),
    ("done", LOG, replaced("completed a build", "done")),
    ("building", LOG, replaced("starting a build", "begin")),
    # The key of the manifest.
    ("done", KEY_OF, member(public_key_pem="c3NoLXJzYQ==")),
    ("done", KEY_OF, member(build_name="another")),
    ("done", KEY_OF, without("build_name")),
    ("done", KEY_OF + " last_build", member(public_key_pem=PEM.decode())),
    ("imported", KEY_OF, member(public_key_pem=PEM.decode())),
    # The digest.
    ("done", DIGEST, text("docker.io/ns/app@sha256:" + 64 * "a")),
    ("done", DIGEST, text('["docker.io/ns/app@sha256:' + 64 * "a" + '"]')),
    ("done", DIGEST, replaced("@sha256", ":sha256")),
    ("done", DIGEST, replaced("sha256:", "sha256:0")),
    # The registration definition.
    ("done", JSON, member(repository_name="../../etc/app")),
    ("done", JSON, member(docker_password="")),
    ("done", JSON, member(docker_username="writer")),
    ("done", JSON, member(envs_whitelist="MODE")),
    ("done", JSON, member(public_key="LS0tLS1CRUdJTiBQR1A=")),
    ("done", JSON, member(public_key_id="")),
    ("done", JSON, without("public_key_id")),
    ("done", PYTHON, text("{}")),
    ("done", PYTHON, text("import os")),
    ("done", PYTHON, text("repository = dict(")),
    ("done", PYTHON, replaced("reader", "writer")),
    ("done", PYTHON, kind("application/json")),
    # The state image.
    ("done", STATE, member(name="../state")),
    ("building", STATE, member(name="state")),
    ("done", STATE, without("export_tag")),
    ("done", STATE, member(export_tag="")),
    ("done", STATE, without("state")),
    ("done", STATE, member(state="*")),
    ("done", STATE, member(state="")),
    ("done", STATE, member(state=7)),
    ("done", STATE, secret_beside_the_seal),
    # The request for a certificate.
    ("uncertified", CSR, without("csr")),
    ("uncertified", CSR, member(csr=PEM.decode())),
    ("uncertified", CSR, member(csr=certificates.request("elsewhere.example"))),
    ("uncertified", CSR, member(csr=certificates.request(None))),
    ("uncertified", CSR, code(201)),
    ("certified", STATUS, text('{"status":""}')),
    # The manifest.
    ("done", MANIFEST, member(manifest_name="manifest")),
    ("done", MANIFEST, member(encoded_manifest="*")),
    ("done", MANIFEST, member(encoded_manifest=base64.b64encode(b"no archive").decode())),
    ("done", MANIFEST, changed_behind_the_signature),
    ("done", MANIFEST, packed(lambda inner: sign(inner))),
    ("done", MANIFEST, packed(pss)),
    ("done", MANIFEST, packed(lambda inner: double_hash(inner) + "\n")),
    ("done", MANIFEST, packed(lambda inner: double_hash(inner).upper())),
    ("done", MANIFEST, packed(lambda inner: "00" * 256)),
    ("done", MANIFEST, packed(parts=PARTS_OF_A_MANIFEST[:2])),
    ("done", MANIFEST, packed(parts=PARTS_OF_A_MANIFEST[1:])),
    ("done", MANIFEST, packed(outer=lambda files: files[:1])),
    ("done", MANIFEST, packed(outer=lambda files: [*files, ("more", b"")])),
    ("done", MANIFEST, packed(outer=lambda files: [(f"./{n}", c) for n, c in files])),
    ("done", MANIFEST, packed(compression="gz")),
]


# The double.


class Double(http.server.BaseHTTPRequestHandler):
    """Tells the replies of its server in turn, and keeps what came."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.command, self.path, dict(self.headers), body))
        code, kind, text = self.server.replies.pop(0)
        content = text.encode()
        self.send_response(code)
        if kind is not None:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = answer

    def log_message(self, *_arguments):
        pass


def tell(server, phase, notes, replies):
    """Runs a phase against these replies. Yields number and fault of each that is called wrong."""
    server.replies, server.seen = list(replies), []
    url = f"http://localhost:{server.server_port}"
    notes = client.Notes(json.loads(json.dumps(notes)))
    results = client.run(phase, url, "ca.pem", "identity.pem", notes)
    for number, (_, _, wrong) in enumerate(results):
        if wrong:
            yield number, wrong


def sent_as_the_original_does(seen, phase):
    """Checks every byte of the requests but those of values."""
    for (method, route, headers, body), row in zip(seen, client.PHASES[phase], strict=True):
        assert (method, route) == row[:2], (method, route)
        told = dict(headers)
        assert told.pop("Host").startswith("localhost:"), headers
        assert told.pop("User-Agent").startswith("python-requests/"), headers
        assert told.pop("Accept-Encoding").startswith("gzip, deflate"), headers
        assert told == {
            "Accept": "*/*",
            "Connection": "keep-alive",
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
        }, headers
        if row[2] == client.NOTHING:
            assert body == b'""', body
        else:
            assert json.dumps(json.loads(body)).encode() == body, body


def orders(seen):
    """Returns the orders in which the members of definitions came."""
    bodies = [json.loads(body) for _, route, _, body in seen if route == "/image"]
    return {tuple(body) for body in bodies if body}


def lie_in(phase, title, change, notes, replies):
    """Returns the replies with the lie, and the number of the reply that it is in."""
    rows = [client.title(row) for row in client.PHASES[phase]]
    number = next(n for n, row in enumerate(rows) if row.startswith(title))
    told = [list(reply) for reply in replies]
    told[number] = change(told[number], notes)
    assert told[number] != replies[number], f"no lie: {phase} {title}"
    if change.__qualname__.startswith("packed"):
        for reply, row in zip(told, rows, strict=True):
            if row in (KEY_OF + ' ""', KEY_OF + " last_build"):
                reply[2] = member(public_key_pem=PEM.decode())(reply, notes)[2]
    return told, number


def main():
    recorded = {}
    for phase in client.PHASES:
        with open(os.path.join(sys.argv[1], phase + ".json"), encoding="utf-8") as file:
            recorded[phase] = json.load(file)
    server = http.server.ThreadingHTTPServer(("localhost", 0), Double)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    seen_orders = set()
    for phase, record in recorded.items():
        found = list(tell(server, phase, record["notes"], record["replies"]))
        assert not found, (phase, found)
        sent_as_the_original_does(server.seen, phase)
        seen_orders |= orders(server.seen)
    assert len(seen_orders) > 2, "the members of a definition are always sent in one order"

    # A manifest that is packed and signed again without a lie is a good one.
    notes, replies = recorded["done"]["notes"], recorded["done"]["replies"]
    told, number = lie_in("done", MANIFEST, packed(), notes, replies)
    found = dict(tell(server, "done", notes, told))
    assert number not in found, f"what is packed here is always wrong: {found}"

    missed, families = [], set()
    for phase, title, change in LIES:
        notes, replies = recorded[phase]["notes"], recorded[phase]["replies"]
        told, number = lie_in(phase, title, change, notes, replies)
        found, wrong = next(tell(server, phase, notes, told), (None, "nothing"))
        good = found == number
        print(f"{'found ' if good else 'MISSED'} {phase}: {title}: {wrong!r}")
        if not good:
            missed.append((phase, title, told[number][2][:100], found))
        families.add(family(client.PHASES[phase][number][4]))
    rows = (row for table in client.PHASES.values() for row in table)
    untried = {family(row[4]) for row in rows} - families
    assert not untried, f"no lie for {untried}"
    assert not missed, f"not found: {missed}"
    print(len(LIES), "lies found")


def family(check):
    return check.__qualname__ if callable(check) else "exactly"


if __name__ == "__main__":
    main()
