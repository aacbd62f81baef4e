"""Scripts at the head of the page, which run in the browser before the UI library."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The library chooses its language from `navigator.language` alone, knows zh-CN and zh-TW, and takes English for zh,
# zh-HK or zh-Hans. This tells it zh-CN for all of them.
CHINESE = """
if (/^zh\\b/i.test(navigator.language)) Object.defineProperty(navigator, "language", {get: () => "zh-CN"});"""

# The library's loading indicator leaves its animation-frame loop running after it is removed: 60 callbacks per second
# that draw nothing, for as long as the page is open, 8 % of a core. So after half a second without input and without a
# change of the page, callbacks wait a second, then two, up to ten; the next input or change runs them at once.
QUIET_FRAMES = """
(() => {
  const next = requestAnimationFrame.bind(window), cancel = cancelAnimationFrame.bind(window), waiting = new Map();
  let last = performance.now(), number = 0, pause = 1000;
  const run = () => {
    const calls = [...waiting.values()];
    waiting.clear();
    calls.forEach((call) => next(call));
  };
  let timer = 0;
  const rest = () => timer = setTimeout(() => { run(); pause = Math.min(2 * pause, 10_000); rest(); }, pause);
  const wake = () => {
    last = performance.now();
    if (pause > 1000) { clearTimeout(timer); pause = 1000; rest(); }
    run();
  };
  window.requestAnimationFrame = (call) => {
    if (performance.now() - last < 500) return next(call);
    waiting.set(--number, call);
    return number;
  };
  window.cancelAnimationFrame = (id) => id < 0 ? waiting.delete(id) : cancel(id);
  new MutationObserver(wake).observe(document, {attributes: true, characterData: true, childList: true, subtree: true});
  for (const type of ["pointermove", "pointerdown", "keydown", "wheel", "scroll", "resize", "focus", "play"])
    addEventListener(type, wake, {capture: true, passive: true});
  rest();
})();"""
HEAD = b"<head>"
SCRIPTS = f"<script>{CHINESE}{QUIET_FRAMES}\n</script>".encode()


class FirstScripts:
    """Adds the scripts to the page at /. The page is sent uncompressed, so that they can be put in."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        begun: list[Message] = []
        body = bytearray()

        async def with_scripts(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun.append(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            changed = bytes(body).replace(HEAD, HEAD + SCRIPTS, 1)
            kept = [pair for pair in begun[0]["headers"] if pair[0].lower() != b"content-length"]
            size = (b"content-length", str(len(changed)).encode())
            await send({**begun[0], "headers": [*kept, size]})
            await send({"type": "http.response.body", "body": changed})

        plain = [pair for pair in scope["headers"] if pair[0].lower() != b"accept-encoding"]
        await self.app({**scope, "headers": plain}, receive, with_scripts)
