"""All texts of the page, in English and Chinese; the browser's language decides."""

from __future__ import annotations

from typing import Any

import gradio as gr

WORDS = {
    "chat": ("Chat", "对话"),
    "image": ("Image", "图像"),
    "compare": ("Compare", "对比"),
    "runs": ("Runs", "运行记录"),
    "label": ("Label", "标注"),
    "ask": ("Type a message; press Enter to send", "输入消息，按回车键发送"),
    "send": ("Send", "发送"),
    "stop": ("Stop", "停止"),
    "again": ("Regenerate", "重新生成"),
    "clear": ("Clear", "清空"),
    "who": ("Runs that answer", "参与回答的运行"),
    "system": ("System prompt", "系统提示词"),
    "temperature": ("Temperature", "温度"),
    "tokens": ("Max tokens", "最大 token 数"),
    "seed": ("Seed", "随机种子"),
    "remember": ("Keep conversation history", "保留对话历史"),
    "model": ("Run", "运行"),
    "of": ("Label: number or name; empty = all in turn", "类别：填编号或名称，留空则依次生成所有类别"),
    "count": ("Number of images", "图像数量"),
    "draw": ("Generate", "生成"),
    "progress": ("Progress", "进度"),
    "picture": ("Images at the current step", "当前步骤的图像"),
    "every": ("Generate with every run", "用所有运行生成"),
    "table": ("Results of sanbu compare", "sanbu compare 的结果"),
    "plot": ("Quality versus speed", "质量与速度"),
    "none_compared": ("No results yet; run sanbu compare digits", "暂无对比结果，请先运行 sanbu compare digits"),
    "unreadable": ("The results cannot be read; run sanbu compare again", "无法读取对比结果，请重新运行 sanbu compare"),
    "figure": ("Metric", "指标"),
    "curve": ("Curve", "曲线"),
    "recipe": ("Recipe", "配方"),
    "parents": ("Parent runs", "父运行"),
    "question": ("Question", "问题"),
    "answers": ("Answers per run", "每个运行的回答数"),
    "fetch": ("Get answers", "获取回答"),
    "order": (
        "Ranking, best first, for example 2 1 3; ties with =, for example 2 1=3",
        "排序：从好到差，例如 2 1 3；并列用等号连接，例如 2 1=3",
    ),
    "save": ("Save ranking", "保存排序"),
    "saved": ("Result", "结果"),
    "written": ("Authors are shown after you save the ranking.", "保存排序后显示每个回答来自哪个运行。"),
    "review": ("Rank a saved question again", "重新标注已保存的问题"),
    "recipes": ("Recipes", "配方"),
    "name": ("Recipe", "配方"),
    "arguments": ("Arguments, for example size=paper", "参数，例如 size=paper"),
    "fields": ("Fields: edit values, then start training", "字段：修改取值后开始训练"),
    "start": ("Start training", "开始训练"),
    "folder": ("Run folder", "运行目录"),
    "about": ("Description", "说明"),
    "over": ("Samples during training, newest first", "训练过程中的样本，最新的在前"),
    "draft": ("Draft", "草稿"),
}
ENGLISH, CHINESE = ({f"sanbu_{name}": pair[language] for name, pair in WORDS.items()} for language in (0, 1))
TEXTS = gr.I18n(en=ENGLISH, zh=CHINESE, **{"zh-CN": CHINESE})


def say(name: str) -> Any:
    """A text of the page, in the language of the browser."""
    return TEXTS(f"sanbu_{name}")
