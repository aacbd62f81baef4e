"""Names that the UI library leaves out, for screen readers: of pictures, of filters, of symbols.

The library has no parameter for them, so a script gives them, 0.2 s after a change of the page.
"""

# A picture is named after the label of its block; a filter after its title; a symbol with a name is an image.
NAMES = """() => {
  const name = () => {
    waiting = false;
    for (const one of document.querySelectorAll(".image-container > button:not([aria-label])")) {
      const label = one.closest(".block")?.querySelector("[data-testid=block-label]");
      one.setAttribute("aria-label", label?.innerText.trim() || "image");
    }
    for (const one of document.querySelectorAll("input[title]:not([aria-label])"))
      one.setAttribute("aria-label", one.title);
    for (const one of document.querySelectorAll("div[aria-label]:not([role])")) one.setAttribute("role", "img");
  };
  let waiting = false;
  const later = () => { if (!waiting) { waiting = true; setTimeout(name, 200); } };
  new MutationObserver(later).observe(document.body, {childList: true, subtree: true});
  later();
  return [];
}"""
