"""The section `cluster:`: where workers run, and how they are reached."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.options.section import Section, refuse_unread


class Tls(Section):
    ca_file: str
    cert: str
    key: str


class Cluster(Section):
    kind: Literal["local", "address", "ssh", "slurm", "kubernetes"] = "local"
    """local: this machine; address: an existing scheduler; ssh, slurm, kubernetes: a cluster started for the run."""
    address: str | None = None
    """For `kind: address`: the scheduler, `tls://host:port` or `tcp://host:port`."""
    n_workers: Annotated[int, Field(ge=1)] | None = None
    """Worker processes. null = for kind local one per core that may be used, or threads of this process if they suffice; for
    kubernetes one."""
    wait_s: float = Field(120, gt=0)
    """How long to wait for workers, and for any answer from the scheduler, before giving up."""
    silent_s: float = Field(30, gt=0)
    """A worker without a heartbeat for this long counts as lost: frozen, cut off or dead."""
    dashboard: bool = True
    """true: Dask's own pages of the run are served behind a password, which `w2v run` and `w2v ui` print; they are created on
    first access. false: no pages."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The cluster class's own keyword arguments, passed through unchanged."""
    tls: Tls | None = None
    """Certificates: `ca_file`, `cert` and `key`, PEM files such as `w2v cluster certs` makes; null = connections without TLS."""
    insecure: bool = False
    """true: kind kubernetes may start a cluster whose connections are neither encrypted nor authenticated, the only kind that
    `dask_kubernetes` offers: anyone who can reach its pods can run code there."""

    @field_validator("address")
    @classmethod
    def address_is_a_schedulers(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"(tcp|tls|ws|wss|ucx)://(\[[^\]\s]+\]|[^\[\]:/\s]+):\d{1,5}/?", value):
            raise ValueError("expected tls://host:port or tcp://host:port")
        return value

    @model_validator(mode="after")
    def address_when_needed(self) -> Cluster:
        if self.kind == "address" and not self.address:
            raise ValueError("kind: address needs cluster.address (tcp://host:port or tls://host:port)")
        if self.kind != "address" and self.address:
            raise ValueError(f"cluster.address is only read with kind: address, found kind: {self.kind}")
        if self.kind == "local" and self.tls:
            raise ValueError("cluster.tls is for clusters of several machines, found kind: local; remove it or set kind")
        if self.kind in ("address", "ssh"):
            has_its_own = "cluster.kind is address, whose workers exist already" if self.kind == "address" else (
                "cluster.kind is ssh, which starts cluster.options: {hosts: […], worker_options: {n_workers: per host}}"
            )  # fmt: skip
            refuse_unread(self, ("n_workers",), has_its_own)
        if self.kind == "address":
            refuse_unread(self, ("options",), "cluster.kind is address, which starts nothing")
            if str(self.address).startswith("tls://") != bool(self.tls):
                raise ValueError(
                    "an address with tls:// needs cluster.tls: {ca_file: …, cert: …, key: …}, and only such an address reads it"
                )
        if self.kind != "kubernetes":
            refuse_unread(self, ("insecure",), f"cluster.kind is {self.kind}, and only kubernetes reads it")
        if self.kind == "slurm" and not (self.n_workers or self.options.get("n_workers")):
            raise ValueError("kind: slurm needs cluster.n_workers, the number of workers in all its jobs together")
        if self.kind == "ssh" and not self.options.get("hosts"):
            raise ValueError("kind: ssh needs cluster.options: {hosts: [scheduler, worker, …]}")
        if self.kind == "kubernetes" and not self.options.keys() & {"image", "name", "custom_cluster_spec"}:
            raise ValueError(
                "kind: kubernetes needs cluster.options: {image: …} with this program in it, {name: …} of an existing "
                "cluster, or {custom_cluster_spec: …}"
            )
        if self.kind == "kubernetes" and not self.insecure:
            raise ValueError(
                "kind: kubernetes: connections of a KubeCluster carry no TLS, so anyone who can reach its pods can run code "
                "there; start the DaskCluster of infra/kubernetes, which has certificates, and use kind: address, or, where "
                "network policies let nobody else in, set cluster.insecure: true"
            )
        return self
