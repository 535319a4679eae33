"""The part of a Kubernetes API server that KubeCluster talks to; its "operator" has a scheduler ready at a given address.

It stands for a service that is not available here. It cannot show that pods come up, nor that a real operator acts.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NOT_FOUND = (404, {"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "not found"})
_CLUSTERS = "/apis/kubernetes.dask.org/v1/namespaces/w2v/daskclusters"


class Api:
    """The requests and objects. `acts` false: an operator that is not running; `silent`: a server that never answers."""

    def __init__(self, scheduler: tuple[str, int], acts: bool = True, silent: bool = False) -> None:
        self.scheduler, self.acts, self.silent = scheduler, acts, silent
        self.asked: list[tuple[str, str]] = []
        self.clusters: dict[str, Any] = {}
        self.made: list[Any] = []
        self.over = threading.Event()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        self.asked.append((method, path))
        if method == "POST" and path == _CLUSTERS:
            self.clusters[body["metadata"]["name"]] = body | ({"status": {"phase": "Running"}} if self.acts else {})
            self.made.append(body)
            return 201, body
        if path.startswith(_CLUSTERS):
            return self._cluster(method, path.removeprefix(_CLUSTERS).strip("/").partition("/")[0], body)
        for kind, make in (("services", self._service), ("pods", self._pod)):
            if f"/{kind}" in path:
                return self._found([make(name) for name in self.clusters], path.partition(f"/{kind}")[2].strip("/"))
        if "/daskworkergroups/" in path:
            return 200, {
                "kind": "DaskWorkerGroup",
                "apiVersion": "kubernetes.dask.org/v1",
                "metadata": {"name": path.split("/")[-1]},
            }
        if path == "/version":
            return 200, {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
        return NOT_FOUND

    def _found(self, items: list[Any], name: str) -> tuple[int, Any]:
        if name:
            return next(((200, item) for item in items if item["metadata"]["name"] == name), NOT_FOUND)
        return 200, {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}

    def _cluster(self, method: str, name: str, body: Any) -> tuple[int, Any]:
        if not name:
            items = list(self.clusters.values())
            return 200, {"kind": "DaskClusterList", "apiVersion": "kubernetes.dask.org/v1", "metadata": {}, "items": items}
        if name not in self.clusters:
            return NOT_FOUND
        if method == "DELETE":
            return 200, self.clusters.pop(name)
        return 200, self.clusters[name]

    def _service(self, cluster: str) -> Any:
        host, port = self.scheduler
        ports = [{"name": "tcp-comm", "port": port}, {"name": "http-dashboard", "port": port}]
        return {
            "kind": "Service", "apiVersion": "v1", "metadata": {"name": f"{cluster}-scheduler", "namespace": "w2v"},
            "spec": {"type": "LoadBalancer", "ports": ports, "selector": {"dask.org/cluster-name": cluster}},
            "status": {"loadBalancer": {"ingress": [{"ip": host}]}},
        }  # fmt: skip

    def _pod(self, cluster: str) -> Any:
        labels = {"dask.org/cluster-name": cluster, "dask.org/component": "scheduler"}
        ready = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady", "Initialized", "PodScheduled")]
        return {
            "kind": "Pod", "apiVersion": "v1", "metadata": {"name": f"{cluster}-scheduler", "namespace": "w2v", "labels": labels},
            "spec": {}, "status": {"phase": "Running", "conditions": ready, "containerStatuses": []},
        }  # fmt: skip


@contextlib.contextmanager
def kubernetes_api(api: Api, folder: Path) -> Iterator[str]:
    """The path of a kubeconfig that leads to this API, served on loopback."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if api.silent:
                api.over.wait(200)
                return
            status, found = api.answer(self.command, self.path.partition("?")[0].rstrip("/"), json.loads(body) if body else None)
            data = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_DELETE = do_PATCH = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # who asked did not wait for the answer

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        path = folder / "kubeconfig"
        where = {"cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}, "name": "here"}
        context = {"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "w2v"}}
        tree = {"apiVersion": "v1", "kind": "Config", "clusters": [where], "contexts": [context], "current-context": "here"}
        path.write_text(json.dumps(tree | {"users": [{"name": "me", "user": {"token": "t"}}]}))
        try:
            yield str(path)
        finally:
            api.over.set()
            server.shutdown()
