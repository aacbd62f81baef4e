"""Every Chinese browser gets the Chinese page.

The UI library chooses its language from `navigator.language` alone, knows zh-CN and zh-TW, and takes English for zh,
zh-HK or zh-Hans. A line of script before the library's own tells it zh-CN for all of them.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEAD = b"<head>"
SCRIPT = (
    b'<script>if (/^zh\\b/i.test(navigator.language)) Object.defineProperty(navigator, "language",'
    b' {get: () => "zh-CN"})</script>'
)


class ChineseFirst:
    """Adds the script to the page at /. The page is sent uncompressed, so that the script can be put in."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        begun: list[Message] = []
        body = bytearray()

        async def with_script(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun.append(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            changed = bytes(body).replace(HEAD, HEAD + SCRIPT, 1)
            kept = [pair for pair in begun[0]["headers"] if pair[0].lower() != b"content-length"]
            size = (b"content-length", str(len(changed)).encode())
            await send({**begun[0], "headers": [*kept, size]})
            await send({"type": "http.response.body", "body": changed})

        plain = [pair for pair in scope["headers"] if pair[0].lower() != b"accept-encoding"]
        await self.app({**scope, "headers": plain}, receive, with_script)
