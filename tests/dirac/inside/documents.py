"""Stands in for OpenSearch, where DIRAC 9 keeps parameters of jobs: documents in memory, by index and id.

It answers only what DIRAC's JobParametersDB asks. usage: documents.py PORT
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

INDEXES: dict[str, dict[str, Any]] = {}
LOCK = threading.Lock()
VERSION = {"name": "stand-in", "version": {"number": "2.11.0", "distribution": "opensearch"}}


def answer(method: str, path: list[str], body: Any) -> tuple[int, Any]:
    """The status and the document for one request."""
    if not path:
        return 200, VERSION
    if path[0] == "_index_template":
        return 200, {"acknowledged": True}
    if path[-1] == "_mget":
        return 200, {"docs": [got(one.get("_index") or path[0], str(one["_id"])) for one in body.get("docs", [])]}
    if path[-1] == "_bulk":
        return 200, {"took": 1, "errors": False, "items": list(bulk(path[0], body))}
    if path[-1] in ("_search", "_delete_by_query", "_update_by_query"):
        return 200, {"hits": {"total": {"value": 0}, "hits": []}, "deleted": 0, "updated": 0}
    if len(path) == 1:
        if method == "PUT":
            INDEXES.setdefault(path[0], {})
        elif method == "DELETE":
            INDEXES.pop(path[0], None)
        elif path[0] not in INDEXES:
            return 404, {}
        return 200, {"acknowledged": True, "index": path[0], path[0]: {}}
    if len(path) == 3 and path[1] in ("_doc", "_update", "_create"):
        return one_document(method, path, body)
    return 400, {"error": f"{method} {'/'.join(path)} is not known to the stand-in"}


def got(index: str, name: str) -> dict[str, Any]:
    found = INDEXES.get(index, {})
    there = {"_source": found[name]} if name in found else {}
    return {"_index": index, "_id": name, "found": name in found, **there}


def bulk(default: str, lines: list[Any]) -> Any:
    pairs = iter(lines)
    for action in pairs:
        ((operation, about),) = action.items()
        document = next(pairs) if operation != "delete" else {}
        index = INDEXES.setdefault(about.get("_index") or default, {})
        index.setdefault(str(about["_id"]), {}).update(document.get("doc", document))
        yield {operation: {"_id": about["_id"], "status": 200}}


def one_document(method: str, path: list[str], body: Any) -> tuple[int, Any]:
    index, kind, name = path
    if method in ("HEAD", "GET"):
        found = got(index, name)
        return (200 if found["found"] else 404), found
    documents = INDEXES.setdefault(index, {})
    if method == "DELETE":
        return (200 if documents.pop(name, None) is not None else 404), {"result": "deleted"}
    if kind == "_update":
        documents.setdefault(name, {}).update(body.get("doc", {}))
    else:
        documents[name] = body
    return 200, {"_index": index, "_id": name, "result": "updated", "_version": 1}


class Handler(BaseHTTPRequestHandler):
    """JSON over HTTP; several JSON lines make a list."""

    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(raw) if raw else {}
        except ValueError:
            body = [json.loads(line) for line in raw.decode().splitlines() if line.strip()]
        path = [unquote(part) for part in urlsplit(self.path).path.split("/") if part]
        with LOCK:
            status, document = answer(self.command, path, body)
        data = b"" if self.command == "HEAD" else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

    def log_message(self, *_: Any) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
