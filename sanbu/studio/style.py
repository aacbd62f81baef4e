"""The look of the page: colours with a contrast of at least 4.5 : 1, visible focus, and a phone layout.

Below 640 pixels the box to type in stands at the bottom of the screen, and a switch shows one run at a time.
"""

from __future__ import annotations

import gradio as gr

from sanbu.studio.chat import COLUMNS

PHONE = 640  # pixels
FONTS, MONOSPACE = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
ONE_RUN = "\n".join(
    f"  .form:has(#switch label:nth-of-type({i}) [aria-checked=true]) ~ #columns .run:not(.run-{i}) {{display: none}}"
    for i in range(1, COLUMNS + 1)
)
STYLE = f"""
footer {{display: none !important}}
#image-shown img, [id^=compare-] img {{image-rendering: pixelated}}
#curve {{padding-bottom: 2.5em}}
#curve, #curve div, #curve svg {{overflow: visible !important}}
#tour table {{width: 100%}} #tour td {{border: 0; padding: .15em .8em .15em 0}} #tour progress {{width: 8em}}
#tour tr.waiting {{opacity: .6}}
.line {{margin: 0; font-size: var(--text-sm)}}
.block:has(> .html-container .line:empty), .block:has(> .html-container > .prose:empty) {{display: none}}
#columns .html-container, #told .html-container {{padding: 0}}
.placeholder-content {{padding: 0 1em}}
#words ::placeholder {{white-space: nowrap}}
#ask, #more, #examples {{align-items: stretch}}
#export .prose, #export .html-container {{height: 100%; padding: 0; margin: 0}}
.line.wrong {{color: var(--error-text-color)}}
#switch {{display: none}}
a.save {{
  display: grid; place-items: center; height: 100%; text-decoration: none; padding: var(--button-large-padding);
  border-radius: var(--button-large-radius); font: var(--button-large-text-weight) var(--button-large-text-size)
  var(--font); background: var(--button-secondary-background-fill); color: var(--button-secondary-text-color);
}}
.answer {{white-space: pre-wrap; text-align: left; justify-content: start; font-weight: normal}}
.answer.ranked {{opacity: .85; border: 2px solid var(--primary-700)}}
.min_value, .max_value {{color: var(--body-text-color-subdued) !important}}
[role=tab][aria-selected=true] {{color: var(--primary-700) !important}}
.dark [role=tab][aria-selected=true] {{color: var(--primary-400) !important}}
.dark .min_value, .dark .max_value {{color: var(--neutral-400) !important}}
:focus-visible {{outline: 3px solid var(--primary-600) !important; outline-offset: 1px}}
@media (max-width: {PHONE}px) {{
  .row {{flex-wrap: wrap}}
  #switch {{display: block}}
{ONE_RUN}
  #ask {{
    position: fixed; left: 0; right: 0; bottom: 0; z-index: 30; flex-wrap: nowrap; margin: 0; padding: .5em;
    background: var(--body-background-fill); border-top: 1px solid var(--border-color-primary);
  }}
  .tabs {{margin-bottom: 6em}}
}}
"""


def theme() -> gr.themes.Base:
    """The default theme with darker colours where text stands on or beside them."""
    orange, gray, red = "*primary_700", "*neutral_600", gr.themes.colors.red
    return gr.themes.Default(font=FONTS, font_mono=MONOSPACE).set(
        color_accent=orange,
        link_text_color=orange,
        body_text_color_subdued=gray,
        body_text_color_subdued_dark="*neutral_400",
        input_placeholder_color=gray,
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill=orange,
        button_primary_background_fill_dark=orange,
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        button_cancel_background_fill=red.c700,
        button_cancel_background_fill_hover=red.c800,
    )
