"""The line about a lost server in Chinese: the UI library shows it, reloads the page later, and knows English alone."""

from __future__ import annotations

import json

from sanbu.studio.translations import WORDS

SHOWN = dict(WORDS[name] for name in ("lost_title", "lost_server"))
TRANSLATE_LOST = f"""() => {{
  if (!/^zh/i.test(navigator.language)) return [];
  const chinese = {json.dumps(SHOWN)};
  new MutationObserver(() => {{
    for (const line of document.querySelectorAll(".toast-body [data-testid=toast-text], .toast-body .toast-title")) {{
      const known = chinese[line.textContent.trim()];
      if (known) line.textContent = known;
    }}
  }}).observe(document.body, {{childList: true, subtree: true}});
  return [];
}}"""
