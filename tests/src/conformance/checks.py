"""What the replies of the v1 wire must be: a function for each form, which raises `Wrong`.

The rules are those of docs/formats/wire.md; nothing of the project's own code is used.
"""

import ast
import base64
import hashlib
import io
import re
import tarfile

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding


class Wrong(Exception):
    """An answer that the original's client could not use, or that the documents do not promise."""


class Notes(dict):
    """What is known of the server. What an earlier reply should have told may be missing."""

    def __missing__(self, name):
        raise Wrong(f"no reply has told {name} yet")


def expect(holds, what):
    if not holds:
        raise Wrong(what)


def parsed(reply):
    """Returns the reply as JSON, which it must be, and must say that it is."""
    kind = reply.headers.get("Content-Type", "none")
    expect(kind.split(";")[0] == "application/json", f"the content type is {kind}")
    try:
        return reply.json()
    except ValueError:
        raise Wrong("the body is not JSON") from None


def members(reply, *names):
    """Returns an object with exactly these members."""
    value = parsed(reply)
    expect(isinstance(value, dict), "the body is not an object")
    expect(sorted(value) == sorted(names), f"the members are {sorted(value)}, not {sorted(names)}")
    return value


def text_member(value, name, form):
    expect(isinstance(value[name], str), f"{name} is not a string")
    expect(re.fullmatch(form, value[name]), f"{name} is {value[name]!r}")
    return value[name]


def refused(reply, notes):
    """An error where the original can print a JSON object."""
    value = parsed(reply)
    expect(isinstance(value, dict), "the error is not an object")
    status = value.get("status")
    expect(isinstance(status, str) and status, "the error has no status")
    expect(not status.startswith("OK"), "the status of an error says OK")
    expect(re.fullmatch("[a-z_]+", str(value.get("code", ""))), "the error has no code")
    repeats_no_secret(reply, notes)


def refused_text(reply, notes):
    """An error where the original ends with a traceback on what parses as JSON."""
    kind = reply.headers.get("Content-Type", "none")
    expect(kind.split(";")[0] == "text/plain", f"the content type is {kind}")
    expect(reply.text.strip(), "the error is empty")
    try:
        reply.json()
    except ValueError:
        repeats_no_secret(reply, notes)
    else:
        raise Wrong("the error is JSON")


def repeats_no_secret(reply, notes):
    config = notes["config"]
    for name in ("SECRET", "DOCKER_PASSWORD", "DOCKER_BASE_PASSWORD"):
        expect(config[name] not in reply.text, f"the error repeats {name}")
    expect(OTHER_SECRET not in reply.text, "the error repeats the secret that was sent")


def status(form):
    """A status whose fields are empty, as they are until a build succeeds."""

    def check(reply, notes):
        value = status_members(reply)
        text_member(value, "status", form)
        text_member(value, "build_image_tag", re.escape(notes["config"]["IMAGE_TAG"]))
        for name in ("build_name", "image_tag", "manifest_key_gen", "manifest_public_key"):
            text_member(value, name, "")

    return check


def status_of_success(reply, notes):
    value = status_members(reply)
    config = notes["config"]
    text_member(value, "status", "success")
    text_member(value, "build_image_tag", re.escape(config["IMAGE_TAG"]))
    tag = text_member(value, "image_tag", re.escape(config["IMAGE_TAG_PREFIX"]) + "-[0-9a-f]{7}")
    text_member(value, "manifest_key_gen", "soft_crypto")
    repository = f"{config['DOCKER_PUSH_SERVER']}/{config['DOCKER_REPO']}"
    begin = re.escape(repository.replace(":", "_").replace("/", ".") + "." + tag)
    name = text_member(value, "build_name", begin + r"\." + TIME)
    expect(re.fullmatch(FILE_NAME, name), "the build name is no file name")
    text_member(value, "manifest_public_key", re.escape(f"manifest.{name}-public.pem"))
    notes["build_name"] = name


def status_members(reply):
    value = members(
        reply,
        *("build_image_tag", "build_name", "image_tag"),
        *("manifest_key_gen", "manifest_public_key", "status"),
    )
    expect(list(value) == sorted(value), "the members are not in alphabetical order")
    return value


def log(*texts):
    """A log with these texts in it, in the original's lines; without texts it is empty."""

    def check(reply, _notes):
        lines = text_member(members(reply, "log"), "log", "(?s).*").splitlines()
        expect(bool(lines) == bool(texts), f"the log has {len(lines)} lines")
        for line in lines:
            expect(re.match(LOG_LINE, line), f"a line of the log is {line!r}")
        for text in texts:
            expect(any(text in line for line in lines), f"the log does not hold {text!r}")

    return check


def public_key(reply, notes):
    value = members(reply, "build_name", "public_key_pem")
    text_member(value, "build_name", re.escape(notes["build_name"]))
    pem = text_member(value, "public_key_pem", "(?s)-----BEGIN PUBLIC KEY-----\n.*")
    expect(serialization.load_pem_public_key(pem.encode()).key_size >= 2048, "the key is small")
    expect(notes.setdefault("public_key", pem) == pem, "it is another key than before")


def manifest(reply, notes):
    """Opens and verifies a manifest as the original does; the key came before."""
    value = members(reply, "encoded_manifest", "manifest_name")
    name = text_member(value, "manifest_name", re.escape("manifest." + notes["build_name"]))
    try:
        outer = base64.b64decode(value["encoded_manifest"], validate=True)
        with tarfile.open(fileobj=io.BytesIO(outer), mode="r:bz2") as archive:
            names = sorted(archive.getnames())
            expect(names == [name + ".sig", name + ".tbz"], f"the manifest holds {names}")
            signature = archive.extractfile(name + ".sig").read().decode()
            inner = archive.extractfile(name + ".tbz").read()
        with tarfile.open(fileobj=io.BytesIO(inner), mode="r:bz2") as archive:
            inside = {path.rstrip("/") for path in archive.getnames()}
    except (ValueError, tarfile.TarError, OSError) as error:
        raise Wrong(f"the manifest does not open: {error}") from None
    expect({"data/build.json", "data/build.log", "git"} <= inside, "a part of it is missing")
    expect(re.fullmatch("[0-9a-f]{512,}", signature), "the signature is not lower-case hex alone")
    key = serialization.load_pem_public_key(notes["public_key"].encode())
    # The file is hashed twice: its hash is the message that is signed.
    message = hashlib.sha256(inner).digest()
    try:
        key.verify(bytes.fromhex(signature), message, padding.PKCS1v15(), hashes.SHA256())
    except Exception:  # The exception of a signature that does not hold has no text.
        raise Wrong("the signature does not hold") from None


def image_digest(reply, notes):
    value = parsed(reply)
    expect(isinstance(value, str), "it is not a JSON string")
    expect(re.fullmatch(repository_of(notes) + "@sha256:[0-9a-f]{64}", value), f"it is {value!r}")
    expect(notes.setdefault("digest", value) == value, "it is another digest than before")


def config_json(reply, notes):
    value = members(
        reply,
        *("docker_password", "docker_username", "envs_whitelist"),
        *("public_key", "public_key_id", "repository_name"),
    )
    config = notes["config"]
    text_member(value, "repository_name", repository_of(notes))
    text_member(value, "docker_username", re.escape(config["DOCKER_RO_USER"]))
    text_member(value, "docker_password", re.escape(config["DOCKER_RO_PASSWORD"]))
    expect(value["envs_whitelist"] == ["MODE"], f"envs_whitelist is {value['envs_whitelist']}")
    # The original makes base64 of it for this kind of runtime and registry.
    text_member(value, "public_key", "(?s)-----BEGIN PGP PUBLIC KEY BLOCK-----\n.*")
    text_member(value, "public_key_id", "[0-9A-F]{40}|[0-9A-F]{64}")
    notes["registration"] = value


def config_python(reply, notes):
    kind = reply.headers.get("Content-Type", "none")
    expect(kind.split(";")[0].startswith("text/"), f"the content type is {kind}")
    try:
        reply.json()
    except ValueError:
        pass
    else:
        raise Wrong("it is JSON")
    try:
        values = {
            statement.targets[0].id: ast.literal_eval(statement.value)
            for statement in ast.parse(reply.text).body
        }
    except (SyntaxError, ValueError, AttributeError):
        raise Wrong("it does not assign values as Python does") from None
    expect(values == {"repository": notes["registration"]}, "it is not what /config-json says")


def state_image(reply, notes):
    value = members(reply, "export_tag", "name", "state")
    text_member(value, "export_tag", ".+")
    # Of the last build that succeeded; a server may have keys before there is one.
    begin = "state." + notes["config"]["DOCKER_REPO"].replace("/", ".") + "."
    unbuilt = re.escape(begin) + TIME
    text_member(value, "name", re.escape(notes["build_name"]) if "build_name" in notes else unbuilt)
    expect(re.fullmatch(FILE_NAME, value["name"]), "the name is no file name")
    try:
        state = base64.b64decode(value["state"], validate=True)
    except (ValueError, TypeError):
        raise Wrong("the state is not base64") from None
    expect(len(state) > 512, f"the state has {len(state)} bytes")
    expect(notes["config"]["DOCKER_PASSWORD"].encode() not in state, "the state is not sealed")
    notes["state"] = value["state"]


def csr(reply, notes):
    """A request for a certificate of the host that was asked for, by whoever has the key."""
    value = members(reply, "csr")
    pem = text_member(value, "csr", "(?s)-----BEGIN CERTIFICATE REQUEST-----\n.*")
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise Wrong(f"it is no request for a host: {error}") from None
    expect(request.is_signature_valid, "the request is not signed by its key")
    expect(request.public_key().key_size >= 2048, "the key is small")
    expect([name.value for name in names] == ["localhost"], f"it is for {names}")
    notes["csr"] = pem


def rotated(reply, notes):
    """The original keeps the new secret only if it reads exactly this."""
    exactly(reply, OK)
    notes["config"]["SECRET"], notes["old_secret"] = notes["new_secret"], notes["config"]["SECRET"]


def exactly(reply, expected):
    value = parsed(reply)
    expect(value == expected, f"the body is {value}, not {expected}")


def repository_of(notes):
    config = notes["config"]
    return re.escape(f"{config['DOCKER_PUSH_SERVER']}/{config['DOCKER_REPO']}")


OK = {"status": "OK"}
OTHER_SECRET = base64.b64encode(b"?" * 128).decode()
TIME = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.\d{6}"
FILE_NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,250}"
LOG_LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}  root       (INFO   |WARNING|ERROR  ) "
FAILURE = r"exiting due to a non-zero return value: [1-9]\d*, cmd: \S.*"
