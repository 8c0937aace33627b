"""An HTTP proxy before a node's front door that changes what one method answers."""

import http.client
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Lies:
    """Which method is lied about, and how; `method` "" passes everything on as it is."""

    method = ""

    def change(self, result):
        """What is told instead of the result."""
        raise NotImplementedError


@contextmanager
def lying(url: str):
    """The address of a proxy before `url`, and the lies that it tells."""
    lies = Lies()
    target = url.removeprefix("http://")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            connection = http.client.HTTPConnection(target, timeout=75)
            connection.request("POST", "/", body, {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
            connection.close()
            if json.loads(body)["method"] == lies.method and "result" in answer:
                answer["result"] = lies.change(answer["result"])
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", lies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
