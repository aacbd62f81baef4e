"""Every word of the page, in English and Chinese; the browser's language chooses."""

from __future__ import annotations

from typing import Any

import gradio as gr

WORDS = {
    "chat": ("Chat", "对话"),
    "image": ("Image", "图像"),
    "compare": ("Compare", "比较"),
    "runs": ("Runs", "训练"),
    "label": ("Label", "标注"),
    "ask": ("Ask something; Enter sends", "输入问题，回车发送"),
    "send": ("Send", "发送"),
    "stop": ("Stop", "停止"),
    "again": ("Regenerate", "重新生成"),
    "clear": ("Clear", "清空"),
    "who": ("Who answers", "由谁回答"),
    "system": ("Told before (system)", "系统提示"),
    "temperature": ("Temperature", "温度"),
    "tokens": ("Tokens at most", "最多词元数"),
    "seed": ("Seed", "随机种子"),
    "remember": ("What was said before counts", "记住之前的对话"),
    "model": ("Run", "运行"),
    "of": ("Label: a number or name, or empty for all in turn", "类别：编号或名称；留空则依次取全部"),
    "count": ("Pictures", "张数"),
    "draw": ("Draw", "绘制"),
    "progress": ("Progress", "进度"),
    "picture": ("Pictures as they come", "逐步显现的图像"),
    "every": ("Draw the same with every run", "让每个运行画同样的内容"),
    "table": ("Measured by sanbu compare", "sanbu compare 的测量"),
    "plot": ("Quality against speed", "质量与速度"),
    "none_compared": ("No comparison yet: sanbu compare digits", "尚无比较：sanbu compare digits"),
    "unreadable": ("this comparison cannot be read; compare again", "无法读取此比较，请重新比较"),
    "figure": ("Figure", "指标"),
    "curve": ("Curve", "曲线"),
    "recipe": ("Recipe", "配方"),
    "parents": ("Begun from", "起点"),
    "question": ("Question", "问题"),
    "answers": ("Answers of each run", "每个运行的回答数"),
    "fetch": ("Get answers", "获取回答"),
    "order": ("Best first, such as 2 1 3; equal ones joined, as in 2 1=3", "从好到坏，如 2 1 3；并列用等号，如 2 1=3"),
    "save": ("Save the order", "保存排序"),
    "saved": ("What happened", "结果"),
    "written": ("Who wrote which is said once the order is saved.", "保存排序后才显示各回答出自哪个运行。"),
    "review": ("Rank one again", "重新标注一题"),
    "recipes": ("Recipes", "配方"),
    "name": ("Recipe", "配方"),
    "arguments": ("Arguments, such as size=paper", "参数，如 size=paper"),
    "fields": ("Fields: change a value, then start", "字段：修改取值后开始"),
    "start": ("Start training", "开始训练"),
    "folder": ("Run folder", "运行文件夹"),
    "about": ("What it is", "说明"),
    "over": ("Samples on the way, latest first", "训练途中的样本，最新在前"),
    "draft": ("Draft", "草稿"),
}
ENGLISH, CHINESE = ({f"sanbu_{name}": pair[language] for name, pair in WORDS.items()} for language in (0, 1))
TEXTS = gr.I18n(en=ENGLISH, zh=CHINESE, **{"zh-CN": CHINESE})


def say(name: str) -> Any:
    """A word of the page, in the reader's language."""
    return TEXTS(f"sanbu_{name}")
