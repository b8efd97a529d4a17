"""No network: what a notebook needs has to be on the machine before it runs.

`refuse_network` closes Python's way out of the current process; run as a module, this file starts
a Jupyter kernel with that way closed. The machine itself stays reachable, because kernels talk to
their notebooks over the loopback address. Programs that a notebook starts are not held back.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Callable
from typing import Any

__all__ = ["refuse_network"]


def refuse_network(who: str = "notebooks") -> None:
    """Make every connection and name look-up beyond this machine raise `OSError` at once.

    Lasts until the process ends. `who` begins the message: "notebooks run offline: ...".
    """
    for name in ("connect", "connect_ex"):
        setattr(socket.socket, name, _guarded(getattr(socket.socket, name), who, _host_of_address))
    # sendto(data, address) and sendto(data, flags, address): the address comes last.
    socket.socket.sendto = _guarded(socket.socket.sendto, who, _host_of_address)  # type: ignore[method-assign]
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
        setattr(socket, name, _guarded(getattr(socket, name), who, _first_of))


def _guarded(
    function: Callable[..., Any], who: str, host_of: Callable[[tuple[Any, ...]], object]
) -> Callable[..., Any]:
    @functools.wraps(function)
    def guarded(*arguments: Any, **options: Any) -> Any:
        host = host_of(arguments) if arguments else options.get("host")
        if not _is_this_machine(host):
            raise OSError(f"{who} run offline: refused to reach {host!r}")
        return function(*arguments, **options)

    return guarded


def _first_of(arguments: tuple[Any, ...]) -> object:
    return arguments[0]


def _host_of_address(arguments: tuple[Any, ...]) -> object:
    """The host in the last argument of a socket's method; None for a Unix socket's path."""
    address = arguments[-1]
    return address[0] if isinstance(address, tuple) else None


def _is_this_machine(host: object) -> bool:
    """Whether `host` is a loopback name or address, or stands for any address of this machine."""
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if text is None or text in ("", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(str(text).partition("%")[0])
    except ValueError:  # a name, and names are looked up elsewhere
        return False
    return address.is_loopback or address.is_unspecified


def main() -> None:
    """Start a kernel without network; the arguments are those of ipykernel."""
    refuse_network()
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()


if __name__ == "__main__":
    main()
