"""An HTTP server on the loopback interface whose faults can be chosen."""

import contextlib
import http.server
import threading


class FileServer(http.server.ThreadingHTTPServer):
    """Serves `files` (a dict from path to bytes).

    Attributes:
      breaks: for the next answers, in order, how many bytes of the body are sent
        before the connection closes; answers after the last are whole.
      states: for the next requests, in order, an HTTP state to answer with.
      redirects: from a path to the address that its answer leads to.
      length: value of Content-Length; None for the truth, "" for no such header.
      log: path of every request.
    """

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.breaks = []
        self.states = []
        self.redirects = {}
        self.length = None
        self.log = []

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.server_address[1]


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.log.append(self.path)
        if server.states:
            self.send_error(server.states.pop(0))
            return
        if self.path in server.redirects:
            self.send_response(302)
            self.send_header("Location", server.redirects[self.path])
            self.end_headers()
            return
        if self.path not in server.files:
            self.send_error(404)
            return
        body = server.files[self.path]
        self.send_response(200)
        length = str(len(body)) if server.length is None else server.length
        if length:
            self.send_header("Content-Length", length)
        self.end_headers()
        if server.breaks:
            body = body[: server.breaks.pop(0)]
        with contextlib.suppress(ConnectionError):  # The client may have left.
            self.wfile.write(body)


@contextlib.contextmanager
def serve(files):
    """Runs a `FileServer` in a thread for the length of the block."""
    with FileServer(files) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
