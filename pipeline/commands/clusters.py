"""Commands for a Dask cluster that people start themselves."""

from __future__ import annotations

import socket
from pathlib import Path

import click

from pipeline.commands.arguments import InOrder, say


@click.group(cls=InOrder)
def cluster() -> None:
    """What a Dask cluster needs that is started by hand."""


@cluster.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--scheduler", metavar="HOST", default=socket.gethostname, show_default="this host", help="Its name or address.")
@click.option("--worker", "workers", metavar="HOST", multiple=True, help="A host of workers; once for each.")
@click.option(
    "--client", "clients", metavar="NAME", multiple=True, help="Who may run things on it; once for each. [default: client]"
)
@click.option("--port", default=8786, show_default=True, type=click.IntRange(1, 65535), help="Of the scheduler.")
@click.option("--days", default=365, show_default=True, type=click.IntRange(1, 3650), help="How long they are valid.")
@click.option("--add", is_flag=True, help="Only add clients (--client) to the authority that is in DIR.")
def certs(
    folder: Path, scheduler: str, workers: tuple[str, ...], clients: tuple[str, ...], port: int, days: int, add: bool
) -> None:
    """Make an authority and certificates for a cluster, in DIR, and say how it is started with them."""
    from pipeline.cluster.certificates import add_clients, instructions, make_certificates

    folder = folder.absolute()
    named = clients or ("client",)
    written = add_clients(folder, named) if add else make_certificates(folder, scheduler, workers, named, days)
    say("\n".join(map(str, written)) + "\n\n" + instructions(folder, scheduler, port, named[0]))
