"""What the UI library leaves out and has no parameter for: names for screen readers, and Chinese for one message.

A script adds them 0.2 s after a change of the page.
"""

import json

GONE = "Connection to the server was lost. Attempting reconnection..."  # the library's words, as the next ones
CHINESE = {GONE: "与服务器的连接已断开，正在尝试重新连接……", "Connection Lost": "连接已断开", "Error": "错误"}

# A picture is named after the label of its block; a filter after its title; a symbol with a name is an image. When the
# library says that the server is gone, it says so in the reader's language, and the chat tab gives the message back.
NAMES = f"""() => {{
  const chinese = {json.dumps(CHINESE)};
  const name = () => {{
    waiting = false;
    for (const one of document.querySelectorAll(".image-container > button:not([aria-label])")) {{
      const label = one.closest(".block")?.querySelector("[data-testid=block-label]");
      one.setAttribute("aria-label", label?.innerText.trim() || "image");
    }}
    for (const one of document.querySelectorAll("input[title]:not([aria-label])"))
      one.setAttribute("aria-label", one.title);
    for (const one of document.querySelectorAll("div[aria-label]:not([role])")) one.setAttribute("role", "img");
    for (const one of document.querySelectorAll("[data-testid=toast-body]:not([data-read])")) {{
      one.dataset.read = "";
      if (one.innerText.includes({json.dumps(GONE)})) document.getElementById("lost")?.click();
      for (const text of /^zh/i.test(navigator.language) ? one.querySelectorAll("*") : [])
        if (!text.children.length && chinese[text.innerText.trim()]) text.innerText = chinese[text.innerText.trim()];
    }}
  }};
  let waiting = false;
  const later = () => {{ if (!waiting) {{ waiting = true; setTimeout(name, 200); }} }};
  new MutationObserver(later).observe(document.body, {{childList: true, subtree: true}});
  later();
  return [];
}}"""
