"""Speaks the v1 wire as the original's client does, and tells what a server answers wrongly.

    client.py PHASE URL AUTHORITY IDENTITY DIRECTORY

Each line of output is one request: `ok` or `WRONG`, and what differs. The exit code is 1 if
anything does. DIRECTORY holds `notes.json`, what phases tell each other: it begins as
{"config": <the client's configuration>}. `<PHASE>.json` is written there: the notes of before, and
every reply.
"""

import base64
import json
import os
import random
import sys

import certificates
import requests
from checks import (
    FAILURE,
    OK,
    OTHER_SECRET,
    Notes,
    Wrong,
    config_json,
    config_python,
    csr,
    exactly,
    expect,
    image_digest,
    log,
    manifest,
    public_key,
    refused,
    refused_text,
    rotated,
    state_image,
    status,
    status_of_success,
)

# What is sent. A body of the tables is a JSON value, or a function that makes one of the notes.
NOTHING = ""  # What the original sends where it has nothing to say: as JSON, two bytes.


def definition(notes):
    """Makes the body of init and update as the original does: of the configuration, in any order."""
    body = dict(notes["config"])
    for kept_here in ("HOSTNAME", "CICD_PORT", "UUID"):
        body.pop(kept_here)
    body["BUILD_IMAGE_TAG"] = body.pop("IMAGE_TAG")
    with open(body.pop("GITHUB_KEY_FILE"), encoding="utf-8") as file:
        body["GITHUB_KEY"] = file.read()
    body["BASE_REPO_PUBLIC_KEY"] = ""
    body["ICR_BASE_REPO_PUBLIC_KEY"] = "/a/path/of/the/client"
    body["DOCKER_CONTENT_TRUST_BASE"] = "False"
    body["GITHUB_RECURSE_SUBMODULES"] = "True"
    body["ISV_SECRET"] = {"TOKEN": "what the original sends without need"}
    body["MANIFEST_BUCKET_NAME"] = ""
    body["ENV_WHITELIST"] = ["MODE"]
    keys = list(body)
    random.shuffle(keys)
    return {key: body[key] for key in keys}


def with_changes(**changes):
    def changed(notes):
        return definition(notes) | changes

    changed.__name__ = "with another " + " ".join(changes)
    return changed


def before_1_3_0_9(notes):
    """What clients sent that knew of no runtime types."""
    body = definition(notes)
    del body["RUNTIME_TYPE"]
    return body


def with_old_secret(notes):
    return definition(notes) | {"SECRET": notes["old_secret"]}


def with_new_secret(notes):
    notes["new_secret"] = base64.b64encode(os.urandom(128)).decode()
    return definition(notes) | {"NEW_SECRET": notes["new_secret"]}


def last_build(notes):
    return {"BUILD_NAME": notes["build_name"]}


def secret_alone(notes):
    return {"secret": notes["config"]["SECRET"]}


def saved_state(notes):
    return secret_alone(notes) | {"state": notes["state"]}


def state_with_other_secret(notes):
    return saved_state(notes) | {"secret": OTHER_SECRET}


def signed(make):
    """Makes the body of the old client's post-server-cert, of the request that came before."""

    def certificate(notes):
        return {"certificate": make(notes["csr"])}

    certificate.__name__ = make.__name__
    return certificate


# The tables: method, route, body, code, check. A check is one of the functions, or the exact JSON.
STARTED = {"status": "OK: async build started"}

ANY_TIME = [
    ("GET", "/log/other", NOTHING, 404, refused),
    ("GET", "/no/such/route", NOTHING, 404, refused),
    ("POST", "/manifest", NOTHING, 405, refused),
    ("GET", "/manifest", {"BUILD_NAME": "no.such.build"}, 404, refused),
    ("GET", "/manifest", {"BUILD_NAME": "../../etc/passwd"}, 400, refused),
    ("GET", "/publickey", {"BUILD_NAME": "no.such.build"}, 404, refused),
    ("GET", "/publickey", {"BUILD_NAME": 1}, 400, refused),
    # A misuse of the original, which sends the flag's count.
    ("POST", "/image", with_changes(NEW_SECRET="1"), 400, refused),
    ("POST", "/image", with_changes(RUNTIME_TYPE="moon"), 400, refused),
    ("PATCH", "/image", with_changes(DOCKER_REPO=""), 400, refused),
    # The original asks even where it has neither a file nor a bucket.
    ("POST", "/state-image", secret_alone, 400, refused),
]

NOT_BUILT = [
    ("GET", "/manifest", NOTHING, 404, refused),
    ("GET", "/publickey", NOTHING, 404, refused),
    ("GET", "/imagedigest", NOTHING, 404, refused_text),
]

WITHOUT_KEYS = [
    ("GET", "/config-json", NOTHING, 404, refused_text),
    ("GET", "/config-python", NOTHING, 404, refused_text),
    ("GET", "/state-image", {}, 404, refused),
]

# The first build makes the keys as it begins, and they stay whatever becomes of it.
WITH_KEYS = [
    ("GET", "/config-json", NOTHING, 201, config_json),
    ("GET", "/config-python", NOTHING, 201, config_python),
    ("GET", "/state-image", {}, 200, state_image),
    # The definition does not say how to get into a bucket.
    ("GET", "/state-image", {"state_bucket_name": "a-bucket"}, 409, refused),
    ("POST", "/image", with_changes(SECRET=OTHER_SECRET), 409, refused),
    ("PATCH", "/image", with_changes(SECRET=OTHER_SECRET), 403, refused),
]

BUILT = [
    ("GET", "/publickey", NOTHING, 200, public_key),
    ("GET", "/publickey", last_build, 200, public_key),
    ("GET", "/imagedigest", NOTHING, 201, image_digest),
]

CLEAN = [
    ("DELETE", "/image", NOTHING, 200, OK),
    ("GET", "/image", NOTHING, 200, status("restarted cicd")),
    ("GET", "/log/build", NOTHING, 200, log()),
]

PHASES = {
    "fresh": [
        ("GET", "/image", NOTHING, 200, {"status": ""}),
        ("GET", "/log/build", NOTHING, 200, log()),
        *NOT_BUILT,
        *WITHOUT_KEYS,
        *ANY_TIME,
        ("PUT", "/image", NOTHING, 409, refused),
        ("PATCH", "/image", definition, 409, refused),
        ("GET", "/image", NOTHING, 200, {"status": ""}),
        ("POST", "/image", definition, 200, OK),
    ],
    "initialised": [
        ("GET", "/image", NOTHING, 200, status("")),
        ("GET", "/log/build", NOTHING, 200, log()),
        *NOT_BUILT,
        *WITHOUT_KEYS,
        *ANY_TIME,
        ("POST", "/image", definition, 200, OK),
        ("POST", "/image", before_1_3_0_9, 200, OK),
        ("PATCH", "/image", before_1_3_0_9, 200, OK),
        ("PATCH", "/image", definition, 200, OK),
        ("GET", "/image", NOTHING, 200, status("")),
        *CLEAN,
        ("PUT", "/image", NOTHING, 200, STARTED),
    ],
    "building": [
        ("GET", "/image", NOTHING, 200, status("github cloned")),
        ("GET", "/log/build", NOTHING, 200, log("starting a build", "the build waits")),
        *NOT_BUILT,
        *WITH_KEYS,
        *ANY_TIME,
        ("PUT", "/image", NOTHING, 409, refused),
        # These are for the next build, and change nothing of this one.
        ("POST", "/image", definition, 200, OK),
        ("PATCH", "/image", definition, 200, OK),
        ("GET", "/image", NOTHING, 200, status("github cloned")),
        *CLEAN,
    ],
    "failed": [
        ("GET", "/image", NOTHING, 200, status(FAILURE)),
        ("GET", "/log/build", NOTHING, 200, log("starting a build", "the build fails")),
        *NOT_BUILT,
        *WITH_KEYS,
        *ANY_TIME,
        # The way out that the original's guides tell.
        *CLEAN,
        ("PATCH", "/image", definition, 200, OK),
        ("PUT", "/image", NOTHING, 200, STARTED),
    ],
    "done": [
        ("GET", "/image", NOTHING, 200, status_of_success),
        ("GET", "/log/build", NOTHING, 200, log("starting a build", "completed a build")),
        *BUILT,
        *WITH_KEYS,
        ("GET", "/manifest", NOTHING, 200, manifest),
        ("GET", "/manifest", last_build, 200, manifest),
        *ANY_TIME,
        ("POST", "/image", definition, 200, OK),
        ("PATCH", "/image", with_new_secret, 200, rotated),
        ("PATCH", "/image", with_old_secret, 403, refused),
        ("GET", "/state-image", {}, 200, state_image),
        ("POST", "/state-image", saved_state, 409, refused),
        ("GET", "/image", NOTHING, 200, status_of_success),
        *CLEAN,
        # What was built stays.
        *BUILT,
        ("GET", "/manifest", NOTHING, 200, manifest),
    ],
    # This one begins with another server that is fresh.
    "imported": [
        ("DELETE", "/image", NOTHING, 200, OK),
        ("GET", "/image", NOTHING, 200, {"status": "restarted cicd"}),
        ("POST", "/state-image", state_with_other_secret, 403, refused),
        ("POST", "/state-image", saved_state, 200, OK),
        ("POST", "/state-image", saved_state, 409, refused),
        ("GET", "/image", NOTHING, 200, status("")),
        ("GET", "/log/build", NOTHING, 200, log()),
        *BUILT,
        *WITH_KEYS,
        # A state has no manifests in it.
        ("GET", "/manifest", NOTHING, 404, refused),
        ("GET", "/manifest", last_build, 404, refused),
        *ANY_TIME,
        ("PATCH", "/image", definition, 200, OK),
        ("PUT", "/image", NOTHING, 200, STARTED),
    ],
    # A server without a certificate, as they were before 1.3.0.4. Nobody can verify it yet.
    "uncertified": [
        ("GET", "/image", NOTHING, 200, {"status": ""}),
        ("POST", "/certificate", {"certificate": ""}, 400, refused),
        ("POST", "/certificate", {"certificate": "no PEM"}, 400, refused),
        ("POST", "/certificate", {}, 400, refused),
        ("POST", "/certificate", NOTHING, 400, refused),
        ("GET", "/csr/a..b", NOTHING, 400, refused),
        ("GET", "/csr/-x", NOTHING, 400, refused),
        ("GET", "/csr/a:443", NOTHING, 400, refused),
        ("POST", "/csr/localhost", NOTHING, 405, refused),
        ("GET", "/certificate", NOTHING, 405, refused),
        ("GET", "/csr/localhost", NOTHING, 200, csr),
        ("GET", "/csr/localhost", NOTHING, 200, csr),
        # No client of today would verify a server without a name.
        ("POST", "/certificate", signed(certificates.without_a_name), 422, refused),
        ("POST", "/certificate", signed(certificates.for_another_host), 422, refused),
        ("POST", "/certificate", signed(certificates.of_another_key), 422, refused),
        ("POST", "/certificate", signed(certificates.of_another_authority), 422, refused),
        ("GET", "/image", NOTHING, 200, {"status": ""}),
        ("POST", "/certificate", signed(certificates.good), 200, OK),
    ],
    # The same server afterwards.
    "certified": [
        ("GET", "/image", NOTHING, 200, {"status": "restarted nginx"}),
        ("POST", "/certificate", signed(certificates.good), 409, refused),
        ("GET", "/csr/localhost", NOTHING, 200, csr),
        ("GET", "/image", NOTHING, 200, {"status": "restarted nginx"}),
    ],
}

# The phases in which the original's client is called with --noverify.
UNVERIFIED = ("uncertified",)


def run(phase, url, authority, identity, notes):
    """Sends the requests of a phase, and yields for each its title, its reply and what is wrong."""
    for row in PHASES[phase]:
        method, route, body, code, check = row
        reply = wrong = None
        try:
            what = body(notes) if callable(body) else body
            # As the original calls it: a connection for each request, the body by `json`.
            reply = requests.request(
                method,
                url + route,
                json=what,
                cert=identity,
                verify=authority if phase not in UNVERIFIED else False,
                timeout=60,
            )
            expect(reply.status_code == code, f"the code is {reply.status_code}, not {code}")
            if callable(check):
                check(reply, notes)
            else:
                exactly(reply, check)
        except Wrong as error:
            wrong = str(error)
        yield title(row), reply, wrong


def title(row):
    method, route, body = row[:3]
    return f"{method} {route} {body.__name__ if callable(body) else json.dumps(body)}"


def main():
    phase, url, authority, identity, directory = sys.argv[1:]
    with open(f"{directory}/notes.json", encoding="utf-8") as file:
        before = file.read()
    notes, replies, bad = Notes(json.loads(before)), [], 0
    for what, reply, wrong in run(phase, url, authority, identity, notes):
        print(f"WRONG {what}: {wrong}" if wrong else f"ok    {what}", flush=True)
        bad += wrong is not None
        if reply is not None:
            replies.append([reply.status_code, reply.headers.get("Content-Type"), reply.text])
    for name, value in [
        ("notes", notes),
        (phase, {"notes": json.loads(before), "replies": replies}),
    ]:
        with open(f"{directory}/{name}.json", "w", encoding="utf-8") as file:
            json.dump(value, file)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
