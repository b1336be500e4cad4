"""A git server over HTTPS with a password: argv is root, certificate, key, file of user:password."""

import base64
import http.server
import os
import ssl
import subprocess
import sys

ROOT, CERTIFICATE, KEY, ACCOUNT = sys.argv[1:]
with open(ACCOUNT, "rb") as file:
    LOGIN = file.read()
USER = LOGIN.split(b":")[0].decode()
EXPECTED = "Basic " + base64.b64encode(LOGIN).decode()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(body)

    def answer(self, body):
        if self.headers.get("Authorization") != EXPECTED:
            return self.reply(401, [("WWW-Authenticate", 'Basic realm="tests"')], b"no\n")
        path, _, query = self.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROJECT_ROOT": ROOT,
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_USER": USER,
        }
        run = subprocess.run(["git", "http-backend"], input=body, env=environment, stdout=-1)
        head, _, content = run.stdout.partition(b"\r\n\r\n")
        headers = [line.split(": ", 1) for line in head.decode().split("\r\n") if line]
        status = [value for name, value in headers if name == "Status"] or ["200"]
        headers = [(name, value) for name, value in headers if name != "Status"]
        self.reply(int(status[0].split()[0]), headers, content)

    def reply(self, status, headers, body):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def finish_request(self, request, client_address):
        # The handshake is in the connection's thread: one that hangs must not stop the others.
        with context.wrap_socket(request, server_side=True) as secured:
            self.RequestHandlerClass(secured, client_address, self)


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(CERTIFICATE, KEY)
server = Server(("127.0.0.1", 0), Handler)
print(f"listening on port {server.server_port}", flush=True)
server.serve_forever()
