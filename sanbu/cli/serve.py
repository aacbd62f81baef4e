"""The verbs of the service: serve, key."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from sanbu.cli.app import Json, app, report
from sanbu.config import ConfigError, SanbuError, nearest


@app.command()
def serve(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run folders, of text or pictures")],
    host: Annotated[
        str, typer.Option("--host", help="127.0.0.1 is this machine alone, 0.0.0.0 whoever can reach it")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any that is free")] = 8000,
    keys: Annotated[Path | None, typer.Option("--keys", metavar="FILE", help="who may ask; made by: sanbu key")] = None,
    origin: Annotated[
        list[str] | None, typer.Option("--origin", help="a page elsewhere that may ask, https://... ; may be repeated")
    ] = None,
    blocks: Annotated[int, typer.Option("--blocks", min=2, help="of the cache, 16 tokens each, for each run")] = 512,
    rows: Annotated[int, typer.Option("--rows", min=1, help="requests in a batch")] = 64,
    queue: Annotated[
        int, typer.Option("--queue", min=1, help="requests that may wait; more are told to come back (429)")
    ] = 256,
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="a request may take")] = 600,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="write what is asked to the log too")] = False,
    weights: Annotated[
        str,
        typer.Option(
            "--weights",
            help="of text runs: full; bfloat16, half as large; int8, a quarter",
        ),
    ] = "full",
    studio: Annotated[bool, typer.Option("--studio/--no-studio", help="the page at /, where it is installed")] = True,
    root: Annotated[Path, typer.Option("--runs", metavar="DIR", help="the runs that the page shows")] = Path("runs"),
    open_page: Annotated[bool, typer.Option("--open", help="open the page in the browser")] = False,
) -> None:
    """Serve runs over HTTP as OpenAI's clients ask, and as a page. Ctrl-C or TERM ends what is begun, then stops.

    \b
    sanbu serve runs/life/ppo --port 8000
    curl localhost:8000/v1/chat/completions -H 'Content-Type: application/json' -d '{"model": "ppo", "messages": [{"role": "user", "content": "What is 12 + 7?"}]}'
    sanbu key ada --keys keys.json && sanbu serve runs/life/ppo --keys keys.json --host 0.0.0.0
    """
    needed = [name for name in ("fastapi", "uvicorn", "sse_starlette", "prometheus_client") if find_spec(name) is None]
    if needed:
        raise SanbuError(f"serving needs {', '.join(needed)}: pip install 'sanbu[serve]'")
    from sanbu.serve.app import application
    from sanbu.serve.hosted_run import Weights
    from sanbu.serve.keys import Keys
    from sanbu.serve.server import listen
    from sanbu.serve.service import Service

    local = host in ("127.0.0.1", "localhost", "::1")
    if not local and keys is None:
        typer.echo("sanbu: whoever can reach this machine may ask; --keys FILE lets only some", err=True)
    wrong = next((page for page in origin or () if not page.startswith(("http://", "https://"))), None)
    if wrong is not None:
        raise ConfigError(f"--origin: given {wrong!r}, allowed: http://... or https://...")
    if weights not in get_args(Weights):
        raise ConfigError(
            f"--weights: given {weights!r}, allowed: {', '.join(get_args(Weights))}{nearest(weights, get_args(Weights))}"
        )
    service = Service.open(
        runs, Keys.load(keys) if keys else None, cast("Weights", weights), blocks=blocks, rows=rows, queue=queue
    )
    api = application(service, seconds=seconds, origins=origin or (), local=local, prompts=log_prompts)
    page = studio and with_page(api, service, root, local, keys is not None)
    listen(api, host, port, list(service.served), open_page and page)


def with_page(api: Any, service: Any, root: Path, local: bool, closed: bool) -> bool:
    """Put the page beside the API, where it can be; else say why not."""
    if closed:
        typer.echo("sanbu: no page, since it has no key; sanbu chat http://HOST:PORT has", err=True)
        return False
    if find_spec("gradio") is None:
        typer.echo("sanbu: no page; pip install 'sanbu[studio]'", err=True)
        return False
    from sanbu.studio.page import mount

    mount(api, service, root, local)
    return True


@app.command()
def key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="whose key it is")],
    keys: Annotated[Path, typer.Option("--keys", metavar="FILE", help="where hashes of keys are kept")] = Path(
        "keys.json"
    ),
    requests: Annotated[int, typer.Option("--requests", min=0, help="a minute; 0 is no limit")] = 0,
    tokens: Annotated[int, typer.Option("--tokens", min=0, help="a minute, given and drawn; 0 is no limit")] = 0,
    as_json: Json = False,
) -> None:
    """Make an API key. It is shown once; the file keeps only its hash."""
    from sanbu.serve.keys import make

    secret = make(keys, name, requests_per_minute=requests, tokens_per_minute=tokens)
    report({"name": name, "key": secret}, as_json, secret)
