"""What the UI library leaves out and has no parameter for: names for screen readers, and Chinese for one message.

A script adds them 0.2 s after a change of the page.
"""

import json

from sanbu.studio.translations import WORDS

GONE = "Connection to the server was lost. Attempting reconnection..."  # the library's words

# A picture is named after the label of its block, a thumbnail also after its caption; a filter after its title; a
# symbol with a name is an image. When the server is gone, the library stops all events and loads the page again as soon
# as the server is back. Until then the page says so in the reader's language, and a message that was on its way stands
# in the box again.
NAMES = f"""() => {{
  const [english, chinese] = {json.dumps(WORDS["lost"])};
  const lost = /^zh/i.test(navigator.language) ? chinese : english;
  const giveBack = () => {{
    const [asked, words] = ["asked", "words"].map((id) => document.querySelector(`#${{id}} textarea`));
    if (asked?.value) [words.value, asked.value] = [asked.value + words.value, ""];
  }};
  const name = () => {{
    waiting = false;
    for (const one of document.querySelectorAll(".image-container > button:not([aria-label])")) {{
      const label = one.closest(".block")?.querySelector("[data-testid=block-label]");
      one.setAttribute("aria-label", label?.innerText.trim() || "image");
    }}
    for (const one of document.querySelectorAll(".thumbnail-item[aria-label]")) {{
      const text = one.innerText.trim();
      if (text && !one.ariaLabel.includes(text)) one.ariaLabel = `${{text}}, ${{one.ariaLabel}}`;
    }}
    for (const one of document.querySelectorAll("input[title]:not([aria-label])"))
      one.setAttribute("aria-label", one.title);
    for (const one of document.querySelectorAll("div[aria-label]:not([role])")) one.setAttribute("role", "img");
    for (const one of document.querySelectorAll("[data-testid=toast-body]:not([data-read])")) {{
      one.dataset.read = "";
      for (const text of one.querySelectorAll("span"))
        if (lost === chinese && text.textContent.trim() === "Error") text.textContent = "错误";
      for (const text of one.querySelectorAll("[data-testid=toast-text]"))
        if (text.textContent.trim() === {json.dumps(GONE)}) {{ text.textContent = lost; giveBack(); }}
    }}
  }};
  let waiting = false;
  const later = () => {{ if (!waiting) {{ waiting = true; setTimeout(name, 200); }} }};
  new MutationObserver(later).observe(document.body, {{childList: true, subtree: true}});
  later();
  return [];
}}"""
