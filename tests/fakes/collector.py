"""A collector of OpenTelemetry: takes OTLP over HTTP and reads it with the protocol's own definitions.

It answers by a script, an entry for each export: a status, or a status with headers, or one with the response message.
When the script is over it takes everything. What it took is in `spans`; what it was sent, in `exports`.
"""

import gzip
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Said:
    """One answer of the script."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    rejected: int = 0


@dataclass
class Export:
    """One request as it came."""

    path: str
    headers: Mapping[str, str]
    message: ExportTraceServiceRequest

    @property
    def spans(self) -> list[Span]:
        return [span for group in self.message.resource_spans for scope in group.scope_spans for span in scope.spans]

    @property
    def resource(self) -> dict[str, str]:
        (group,) = self.message.resource_spans
        return {pair.key: pair.value.string_value for pair in group.resource.attributes}


class Collector:
    def __init__(self, *script: Said) -> None:
        self.script = list(script)
        self.exports: list[Export] = []
        self.spans: list[Span] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, headers, answer = collector._take(self.path, dict(self.headers), body)
                self.send_response(status)
                for name, value in {"Content-Type": "application/x-protobuf", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Collector":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _take(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        assert headers["Content-Type"] == "application/x-protobuf"
        if headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        export = Export(path, headers, ExportTraceServiceRequest.FromString(body))
        self.exports.append(export)
        said = self.script.pop(0) if self.script else Said(200)
        answer = ExportTraceServiceResponse()
        if said.rejected:
            answer.partial_success.rejected_spans = said.rejected
            answer.partial_success.error_message = "too old"
        if said.status == 200:
            self.spans += export.spans[said.rejected :]
        return said.status, said.headers, answer.SerializeToString()
