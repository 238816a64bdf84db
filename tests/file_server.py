"""A real HTTP server on loopback whose faults can be chosen, for the download tests."""

import contextlib
import hashlib
import http.server
import re
import threading


class FileServer(http.server.ThreadingHTTPServer):
    """Serves `files` (a dict from path to bytes).

    Attributes:
      ranges: answer Range requests with 206; otherwise always with the whole file.
      tags: send an ETag (a hash of the content).
      checks_tags: compare If-Range with the tag, as a correct server does.
      breaks: for the next answers, in order, how many bytes of the body are sent
        before the connection closes; answers after the last are whole.
      states: for the next requests, in order, an HTTP state to answer with.
      redirects: from a path to the address that its answer leads to.
      length: what Content-Length says; None for the truth.
      log: (path, Range header, If-Range header) of every request.
    """

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.ranges = True
        self.tags = True
        self.checks_tags = True
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
        wanted, tag_given = self.headers["Range"], self.headers["If-Range"]
        server.log.append((self.path, wanted, tag_given))
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
        data = server.files[self.path]
        tag = '"%s"' % hashlib.sha256(data).hexdigest()[:16]
        start = 0
        fits = not server.checks_tags or tag_given in (None, tag)
        if wanted and server.ranges and fits:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted).group(1))
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header(
                "Content-Range", "bytes %d-%d/%d" % (start, len(data) - 1, len(data))
            )
        else:
            self.send_response(200)
        if server.tags:
            self.send_header("ETag", tag)
        body = data[start:]
        self.send_header("Content-Length", server.length or str(len(body)))
        self.end_headers()
        if server.breaks:
            body = body[: server.breaks.pop(0)]
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
