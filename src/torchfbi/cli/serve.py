"""``torchfbi serve``: the web page."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from torchfbi.cli import report
from torchfbi.errors import SettingsError, needs

if TYPE_CHECKING:
    from torchfbi.models.source import Source

NETWORK_MIB = 200
"""Most networks are smaller; a VGG-16 is not."""


def serve(
    networks: dict[str, Source],
    host: Annotated[
        str, typer.Option(help="The address to listen at; 0.0.0.0 opens it to the network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 for a free one.", min=0, max=65535)] = 7860,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A further name under which browsers may ask, such as that of a proxy.",
            show_default=False,
        ),
    ] = None,
    auth: Annotated[
        str | None,
        typer.Option(
            envvar="TORCHFBI_AUTH",
            help="USER:PASSWORD that browsers have to give. Better set as the environment "
            "variable, since other users of the machine see arguments.",
            show_default=False,
        ),
    ] = None,
    max_mib: Annotated[int, typer.Option(help="The largest upload, in MiB.", min=1)] = 20,
    max_megapixels: Annotated[int, typer.Option(help="The largest photo.", min=1)] = 25,
    allow_networks: Annotated[
        bool,
        typer.Option(
            "--allow-networks",
            help="Let visitors drop networks of their own, as ONNX files of up to "
            f"{NETWORK_MIB} MiB (or --max-mib, if that is more).",
        ),
    ] = False,
    max_seconds: Annotated[int, typer.Option(help="The longest wait for an answer.", min=1)] = 60,
) -> None:
    """Serve the web page: photos in, explanations out, by clicking. Nothing leaves this machine."""
    if allow_networks:
        if sys.platform != "linux":
            raise SettingsError(
                "--allow-networks is for Linux: elsewhere the memory of what a visitor's network "
                "does cannot be limited."
            )
        with needs("torchfbi[onnx]"):
            import onnx  # noqa: F401
    with needs("torchfbi[web]"):
        from torchfbi.web.limits import Limits
        from torchfbi.web.server import serve as run
        from torchfbi.web.server import stoppable
    if auth is not None and (":" not in auth or auth.startswith(":") or auth.endswith(":")):
        raise SettingsError("--auth is USER:PASSWORD, neither of them empty.")
    limits = Limits(
        upload=max_mib * 2**20,
        pixels=max_megapixels * 1_000_000,
        seconds=float(max_seconds),
        network=max(max_mib, NETWORK_MIB) * 2**20 if allow_networks else 0,
    )
    with stoppable():
        report.console.print("One moment: the network is loaded and captured.")
        run(
            networks,
            host,
            port,
            hosts=allow_host or (),
            auth=auth,
            limits=limits,
            ready=lambda url: report.console.print(
                f"Open {url} in a browser. Ctrl-C stops it.", soft_wrap=True
            ),
            loaded=lambda model: report.warn(model.warnings()),
        )
