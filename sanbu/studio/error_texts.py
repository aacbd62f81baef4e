"""Errors in the language of the page. The library's errors are English lines; the known ones are told in Chinese."""

from __future__ import annotations

import re

from sanbu.studio.translations import Language

FIELDS = {
    "temperature": "温度",
    "label": "类别",
    "seed": "随机种子",
    "max_tokens": "最大 token 数",
    "messages": "消息",
    "question": "问题",
    "order": "排序",
    "n": "数量",
    "speed": "语速",
    "voice": "音色",
    "input": "文本",
}
CHINESE: tuple[tuple[str, str], ...] = (
    (r"the prompt has ([\d,]+) tokens; allowed: 1 to ([\d,]+).*", r"输入有 \1 个 token，允许 1 到 \2 个"),
    (
        r"the prompt has ([\d,]+) characters, which cannot fit; allowed: 1 to ([\d,]+).*",
        r"输入有 \1 个字符，放不进上下文；允许 1 到 \2 个 token",
    ),
    (r"(\S+) is not ready: (.*)", r"\1 尚未就绪：\2"),
    (r"no model '(.*?)'.*", r"没有名为“\1”的运行"),
    (r"the queue is full.*", "请求太多，队列已满，请稍后再试"),
    (r"internal error; see the server log.*", "内部错误，详情见服务器日志"),
    (r"(generation|sampling) failed; see the server log", "生成失败，详情见服务器日志"),
    (r"the question is empty.*", "问题为空，请输入问题"),
    (r"all answers are equal.*", "所有回答相同，请增加每个运行的回答数，或选择更多运行"),
    (r"no run is selected.*", "没有选择运行，请至少选择一个"),
    (r"no answers to rank.*", "没有可排序的回答，请先获取回答"),
    (
        r"given (.*); enter each number from 1 to (\d+) once, best first, for example (.*)",
        r"输入为 \1；请从好到差填写 1 到 \2，每个编号一次，例如 \3",
    ),
    (r"label: given (.*), but this run was trained without labels", r"类别：输入为 \1，但该运行训练时没有类别"),
)
STATES = {"waiting": "等待中", "running": "训练中", "done": "已完成"}


def error_text(error: Exception, language: Language) -> str:
    """One line for people about an error: its own line, or that line in Chinese."""
    text = str(error)
    if language == "en":
        return text
    for pattern, chinese in CHINESE:
        found = re.fullmatch(pattern, text, re.DOTALL)
        if found:
            return with_states(found.expand(chinese))
    given = re.fullmatch(r"(\w+): given (.*?), allowed: (.*)", text, re.DOTALL)
    if given:
        name, value, allowed = given.groups()
        among = allowed.replace(" to ", " 到 ").replace(", or ", " 或 ")
        return f"{FIELDS.get(name, name)}：输入为 {value}，允许 {among}"
    return f"出错：{text}"


def with_states(text: str) -> str:
    """A text with the states of a training in Chinese."""
    for english, chinese in STATES.items():
        text = re.sub(rf"(?<=：){english}\b", chinese, text)
    text = re.sub(r"about (.*) of training left", r"约需再训练 \1", text)
    return re.sub(r"(?<=\d) min\b", " 分", re.sub(r"(?<=\d) s\b", " 秒", text))
