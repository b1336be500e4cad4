#!/usr/bin/python3
"""Stands in for sbs-server where the restore drill is tested: it takes any state image.

The text in the root secret's file says what it does. What it saw is left beside that file.
"""

import base64
import hashlib
import http.server
import json
import os
import pathlib
import ssl
import sys
import tomllib

settings = tomllib.loads(pathlib.Path(sys.argv[3]).read_text())
root_secret = pathlib.Path(settings["root-secret"]["file"])
data = pathlib.Path(settings["data-directory"])
mode = root_secret.read_text()
seen = {"pid": os.getpid(), "directory": str(data.parent), "variables": sorted(os.environ),
        "settings_mode": os.stat(sys.argv[3]).st_mode & 0o7777,
        "directory_mode": os.stat(data.parent).st_mode & 0o7777}
root_secret.with_suffix(".seen").write_text(json.dumps(seen))
if mode == "dies":
    sys.exit("the root secret is \x1b[31mnot good")
data.mkdir()
header = b""


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status, body, **fields):
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/v2/info":
            limits = {"page_builds": 1, "request_body_bytes": 1, "v1_manifest_bytes": 1}
            info = {"api": 2, "server_version": "9", "features": ["state"], "limits": limits}
            return self.answer(200, json.dumps(info).encode())
        digest = base64.b64encode(hashlib.sha256(header).digest()).decode()
        return self.answer(200, header, Content_Disposition='attachment; filename="again"',
                           Repr_Digest=f"sha-256=:{digest}:")

    def do_POST(self):
        global header
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if mode == "refuses":
            text = {"status": "sealed under another root secret", "code": "unknown_server_key"}
            return self.answer(422, json.dumps(text).encode())
        image = body[body.index(b"SBS-SEAL"):]
        epoch = int.from_bytes(image[24:32], "big") + (mode != "forgets")
        end = 48 + int.from_bytes(image[12:16], "big")
        header = image[:24] + epoch.to_bytes(8, "big") + image[32:end]
        return self.answer(200, json.dumps(
            {"status": "OK", "epoch": epoch, "definition": True}).encode())

    def log_message(self, *_):
        pass


def pem(name):
    path = data / name
    path.write_bytes(base64.b64decode(os.environ[name]))
    return path


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(pem("SERVER_CRT"), pem("SERVER_KEY"))
context.load_verify_locations(pem("CLIENT_CA"))
context.verify_mode = ssl.CERT_REQUIRED
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
(data / "address").write_text("127.0.0.1:%d\n" % server.server_address[1])
server.serve_forever()
