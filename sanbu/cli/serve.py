"""The verbs of the service: serve, key."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from sanbu.cli.app import Json, Weights, app, report
from sanbu.config import ConfigError, SanbuError
from sanbu.parallel.launch import speaks

LOCAL = ("127.0.0.1", "localhost", "::1")


@app.command()
def serve(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run folders, of text or pictures")],
    host: Annotated[
        str, typer.Option("--host", help="bind address; 127.0.0.1 = local only, 0.0.0.0 = all interfaces")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="port; 0 takes a free one")] = 8000,
    keys: Annotated[
        Path | None, typer.Option("--keys", metavar="FILE", help="require API keys from this file; see: sanbu key")
    ] = None,
    origin: Annotated[
        list[str] | None, typer.Option("--origin", help="allowed CORS origin, https://...; may be repeated")
    ] = None,
    blocks: Annotated[int, typer.Option("--blocks", min=2, help="KV-cache blocks per run, 16 tokens each")] = 512,
    rows: Annotated[int, typer.Option("--rows", min=1, help="requests per batch, at most")] = 64,
    queue: Annotated[int, typer.Option("--queue", min=1, help="requests that may wait; more get status 429")] = 256,
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="time limit per request, in seconds")] = 600,
    notice: Annotated[
        float, typer.Option("--notice", min=0, help="seconds after SIGTERM in which only /health says so, with 503")
    ] = 0,
    drain: Annotated[
        int, typer.Option("--drain", min=0, help="seconds that running requests have to finish after SIGTERM")
    ] = 30,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="host name under which clients ask; may be repeated")
    ] = None,
    ping: Annotated[
        int, typer.Option("--ping", min=0, help="seconds between comments that keep a stream open; 0 = none")
    ] = 15,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="write request bodies to the log")] = False,
    weights: Weights = "full",
    tensor: Annotated[
        int, typer.Option("--tensor", min=1, help="processes over which the matrices of each model are divided")
    ] = 1,
    studio: Annotated[bool, typer.Option("--studio/--no-studio", help="serve the studio at /")] = True,
    root: Annotated[Path, typer.Option("--runs", metavar="DIR", help="runs that the studio shows")] = Path("runs"),
    open_page: Annotated[bool, typer.Option("--open", help="open the studio in the browser")] = False,
) -> None:
    """Serve runs over an OpenAI-compatible API, with the studio at /.

    Ctrl-C or SIGTERM finishes running requests, then stops.

    \b
    sanbu serve runs/chat/ppo --port 8000
    curl localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\
      -d '{"model": "ppo", "messages": [{"role": "user", "content": "What is 12 + 7?"}]}'
    sanbu key ada --keys keys.json
    sanbu serve runs/chat/ppo --keys keys.json --host 0.0.0.0

    Long because every option has its own lines.
    """
    check_options(host, keys, origin or (), weights)
    from sanbu.serve.app import application
    from sanbu.serve.keys import Keys
    from sanbu.serve.server import listen
    from sanbu.serve.service import Service
    from sanbu.serve.team import team_of

    local, known = host in LOCAL, Keys.load(keys) if keys else None
    limits: Any = {"weights": weights, "blocks": blocks, "rows": rows, "queue": queue}
    with team_of(tensor, sys.argv[1:]) as team:
        service = team.together(lambda: Service.open(runs, known, team=team, **limits))
        if not team.leads:
            team.follow()
            return
        names, origins = name or (), origin or ()
        api = application(
            service, seconds=seconds, origins=origins, local=local, prompts=log_prompts, names=names, ping=ping
        )
        page = studio and with_page(api, service, root, local, keys is not None)
        listen(api, host, port, list(service.runs), open_page and page, drain=drain, notice=notice)


def check_options(host: str, keys: Path | None, origins: Sequence[str], weights: str) -> None:
    """Raise SanbuError for a missing library and for options that are not allowed; warn about an open server."""
    needed = [name for name in ("fastapi", "uvicorn", "sse_starlette", "prometheus_client") if find_spec(name) is None]
    if needed:
        raise SanbuError(f"serving needs {', '.join(needed)}: pip install 'sanbu[serve]'")
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        raise ConfigError(f"--host: given {host!r}, which is no address of this machine, as 127.0.0.1") from None
    if host not in LOCAL and keys is None and speaks():
        typer.echo(
            "sanbu: warning: anyone who can reach this host can send requests; use --keys FILE to require API keys",
            err=True,
        )
    wrong = next((origin for origin in origins if not origin.startswith(("http://", "https://"))), None)
    if wrong is not None:
        raise ConfigError(f"--origin: given {wrong!r}, allowed: http://... or https://...")
    from sanbu.serve.weights.convert import known

    known(weights)


def with_page(api: Any, service: Any, root: Path, local: bool, closed: bool) -> bool:
    """Mount the studio beside the API where possible; otherwise print why not."""
    if closed:
        typer.echo("sanbu: studio disabled: it does not support --keys; use `sanbu chat http://HOST:PORT`", err=True)
        return False
    if find_spec("gradio") is None:
        typer.echo("sanbu: studio disabled: pip install 'sanbu[studio]'", err=True)
        return False
    from sanbu.studio.page import mount

    mount(api, service, root, local)
    return True


@app.command()
def key(
    words: Annotated[
        list[str], typer.Argument(metavar="NAME | list | revoke NAME", help="name of the key's owner, or what to do")
    ],
    keys: Annotated[Path, typer.Option("--keys", metavar="FILE", help="file with the hashes of keys")] = Path(
        "keys.json"
    ),
    requests: Annotated[int, typer.Option("--requests", min=0, help="requests per minute; 0 = no limit")] = 0,
    tokens: Annotated[
        int, typer.Option("--tokens", min=0, help="prompt and generated tokens per minute; 0 = no limit")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Make, list and revoke API keys. A key is shown once, the file keeps only its hash; a running server follows it.

    \b
    sanbu key ada --keys keys.json --requests 60
    sanbu key list --keys keys.json
    sanbu key revoke ada --keys keys.json
    """
    from sanbu.serve.key_file import make, read_keys, revoke

    if words == ["list"]:
        known = [one.model_dump(exclude={"sha256"}) for one in read_keys(keys)]
        report({"keys": known}, as_json, "\n".join(map(key_line, known)) or f"{keys} has no keys")
    elif words[0] == "revoke" and len(words) == 2:
        revoke(keys, words[1])
        report({"revoked": words[1]}, as_json, f"revoked {words[1]}")
    elif len(words) == 1:
        secret = make(keys, words[0], requests_per_minute=requests, tokens_per_minute=tokens)
        report({"name": words[0], "key": secret}, as_json, secret)
    else:
        raise ConfigError(f"key: given {' '.join(words)[:80]!r}, allowed: NAME, list or revoke NAME")


def key_line(one: dict[str, Any]) -> str:
    """A key and its limits."""
    limits = [
        f"{one[f'{what}_per_minute']} {what} per minute" for what in ("requests", "tokens") if one[f"{what}_per_minute"]
    ]
    return f"{one['name']}: {', '.join(limits) or 'no limit'}"
