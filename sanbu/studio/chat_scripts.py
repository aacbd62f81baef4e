"""The few lines of the chat tab that run in the browser: what must not wait for the server, and what outlives it.

Each is a function of the inputs of an event that returns its outputs. KEEP leaves a widget as it is.
"""

import json

KEEP = '({__type__: "update"})'

# A message leaves the box at once, unless an answer is being written or no run is chosen.
TAKE = f"""(words, asked, who) => {{
  if (!words.trim() || !who.length || asked || document.getElementById("stop")) return [{KEEP}, asked];
  if (document.activeElement?.id === "send") document.querySelector("#words textarea").focus();
  return ["", words];
}}"""


def example(button: str) -> str:
    """The text of a button becomes the message."""
    return f"""(asked, who) => asked || !who.length || document.getElementById("stop")
      ? asked : document.getElementById("{button}").innerText.trim()"""


# A message that was not accepted goes back before what was typed since.
GIVE_BACK = f"(words, asked) => [asked ? asked + words : {KEEP}, '']"


def forget(name: str) -> str:
    """The conversations without that of a run."""
    return f"""(kept) => {{
      const {{{json.dumps(name)}: _, ...rest}} = JSON.parse(kept || "{{}}");
      return JSON.stringify(rest);
    }}"""


# Clear ends the answers first: what they still send would fill the page again.
CLEAR = """async () => {
  const asked = document.querySelector("#asked textarea"), stop = () => document.getElementById("stop");
  const ends = async (going) => { while (going()) await new Promise((later) => setTimeout(later, 20)); };
  await ends(() => asked.value);
  stop()?.click();
  await ends(stop);
  return ["{}", ""];
}"""

FOCUS = "() => { document.querySelector('#words textarea').focus(); return []; }"

# A tab has its own conversations (session); a new tab begins with the newest ones of any tab (local).
SAVE = """(...stored) => {
  if (!window.sanbuLoaded) return [];
  const text = JSON.stringify(stored);
  try { sessionStorage.sanbuChat = text; localStorage.sanbuChat = text; } catch { /* full or forbidden */ }
  return [];
}"""

LOAD = """(...given) => {
  window.sanbuLoaded = true;
  try {
    const stored = JSON.parse(sessionStorage.sanbuChat ?? localStorage.sanbuChat);
    const [kept, chosen, ...rest] = stored, served = chosen.filter((name) => given[1].includes(name));
    return stored.length === given.length ? [kept, served.length ? served : given[1], ...rest] : given;
  } catch { return given; }
}"""

# What is typed and not sent yet, or on its way, survives a reload of the tab too.
DRAFT = """(words) => {
  const text = (id) => document.querySelector(`#${id} textarea`)?.value ?? "";
  addEventListener("pagehide", () => { try { sessionStorage.sanbuDraft = text("asked") + text("words"); } catch {} });
  try { return [words || (sessionStorage.sanbuDraft ?? "")]; } catch { return [words]; }
}"""
