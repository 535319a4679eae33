"""The commands for a Dask cluster that users start themselves."""

from __future__ import annotations

import socket
from pathlib import Path

import click

from pipeline.commands.arguments import InOrder, Whole, say


@click.group(cls=InOrder)
def cluster() -> None:
    """Prepare a Dask cluster that is started by hand."""


@cluster.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--scheduler", metavar="HOST", show_default="this host", help="The scheduler's host.")
@click.option("--worker", "workers", metavar="HOST", multiple=True, help="A host with workers; repeat for each.")
@click.option(
    "--client", "clients", metavar="NAME", multiple=True, help="Who may use the cluster; repeat for each. [default: client]"
)
@click.option("--port", default=8786, show_default=True, type=Whole(1, 65535), help="Port of the scheduler.")
@click.option("--days", default=365, show_default=True, type=Whole(1, 3650), help="Validity of the certificates.")
@click.option("--add", is_flag=True, help="Only add clients (--client) to the authority in DIR.")
def certs(
    folder: Path, scheduler: str | None, workers: tuple[str, ...], clients: tuple[str, ...], port: int, days: int, add: bool
) -> None:
    """Create a certificate authority and certificates for a cluster in DIR, and print the commands that start it with them."""
    from pipeline.cluster.certificates import add_clients, instructions, make_certificates, scheduler_of

    folder = folder.absolute()
    named = clients or ("client",)
    if scheduler is None:
        scheduler = (scheduler_of(folder) if add else None) or socket.gethostname()
    written = add_clients(folder, named) if add else make_certificates(folder, scheduler, workers, named, days)
    say("\n".join(map(str, written)) + "\n\n" + instructions(folder, scheduler, port, named[0]))
