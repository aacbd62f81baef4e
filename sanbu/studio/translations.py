"""All texts of the page, in English and Chinese; the browser's language decides."""

from __future__ import annotations

from typing import Any, Literal

import gradio as gr

from sanbu.display.ranks import LATE

Language = Literal["en", "zh"]

WORDS = {
    "tour": ("Tour", "导览"),
    "chat": ("Chat", "对话"),
    "image": ("Image", "图像"),
    "compare": ("Compare", "对比"),
    "speech": ("Speech", "语音"),
    "voice": ("Voice", "音色"),
    "speed": ("Speed", "语速"),
    "text": ("Text", "文本"),
    "speak": ("Speak", "朗读"),
    "sound": ("Sound", "声音"),
    "beside": ("Second run, beside the first", "并列对比的第二个运行"),
    "listen": ("Sound to recognise", "待识别的声音"),
    "heard": ("Recognised text", "识别结果"),
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
    "own": ("the run's own", "采用各运行的默认值"),
    "tokens": ("Max tokens", "最大 token 数"),
    "seed": ("Seed", "随机种子"),
    # chat
    "remember": ("Keep conversation history", "保留对话历史"),
    "export": ("Export", "导出"),
    "examples": ("Examples", "示例问题"),
    "example_1": ("What can you help me with?", "你能帮我做什么？"),
    "example_2": ("Tell me a short story.", "给我讲一个小故事。"),
    "example_3": ("Explain in one sentence what a language model is.", "用一句话解释什么是语言模型。"),
    "switch": ("Run shown", "显示的运行"),
    "previous": ("Previous version", "上一版"),
    "next": ("Next version", "下一版"),
    "version": ("version {shown} of {count}", "第 {shown} 版，共 {count} 版"),
    "rate": ("{tokens} tokens, {rate:.0f} tokens per second", "{tokens} 个 token，每秒 {rate:.0f} 个"),
    "ended_stop": ("complete", "回答完整"),
    "ended_length": ("cut off at Max tokens", "达到最大 token 数，被截断"),
    "ended_context": ("cut off because the context is full", "上下文已满，被截断"),
    "ended_cancelled": ("stopped by you", "已由你停止"),
    "ended_error": ("ended by an error", "因出错而中断"),
    "ended_": ("interrupted", "已中断"),
    "answering": ("answering", "正在回答"),
    "about_chat": (
        "{kind}, {count} parameters, context of {context} tokens; trained on conversations.",
        "{kind}，参数量 {count}，上下文 {context} 个 token；用对话数据训练。",
    ),
    "about_base": (
        "{kind}, {count} parameters, context of {context} tokens; continues a text, not trained on conversations.",
        "{kind}，参数量 {count}，上下文 {context} 个 token；续写文本，未用对话数据训练。",
    ),
    "about_expected": ("Not trained yet: {state}.", "尚未训练完成：{state}。"),
    "no_run": ("Choose at least one run that answers.", "请至少选择一个参与回答的运行。"),
    "no_text": ("Type a message first.", "请先输入消息。"),
    "no_turn": ("There is no message to answer again yet.", "还没有可以重新回答的消息。"),
    "busy": ("An answer is being written. Press Stop first.", "正在生成回答，请先点“停止”。"),
    "lost": (
        "The server cannot be reached. The conversation and your message are kept; this page goes on when it is back.",
        "无法连接服务器。对话和你的消息都已保留，服务器恢复后本页会自动继续。",
    ),
    # label
    "tie": ("Tie with the next one", "与下一个并列"),
    "undo": ("Undo", "撤销"),
    "pick": ("Click the answers from best to worst.", "请按从好到差的顺序点击各个回答。"),
    "ranked": ("{ranked} of {count} ranked", "已排 {ranked} / {count} 个"),
    "rankings": ("{file}: {count} rankings", "{file}：共 {count} 条排序"),
    "no_rankings": (
        "No rankings saved yet. Enter a question, get answers, and click them from best to worst.",
        "还没有保存的排序。请输入问题、获取回答，然后按从好到差的顺序点击。",
    ),
    "torn": (
        "not readable and left out, line {lines}; please repair the file",
        "无法读取、未计入的行：第 {lines} 行；请修复该文件",
    ),
    "agreement": ("agreement: {share:.0%} of {pairs} comparisons", "一致率：{pairs} 次比较中的 {share:.0%}"),
    "undone": ("The saved ranking was taken back.", "已撤回保存的排序。"),
    "nothing_undone": ("There is nothing to undo.", "没有可撤销的操作。"),
    "place": ("place {place}", "第 {place} 名"),
    "unlabelled": ("This run was trained without labels.", "该运行训练时没有类别。"),
    "steps": ("{count} steps, {seconds:.2f} s", "{count} 步，{seconds:.2f} 秒"),
    "step": ("{count} step, {seconds:.2f} s", "{count} 步，{seconds:.2f} 秒"),
    "spoken": (
        "{seconds:.2f} s of sound; first piece after {first:.0f} ms, all after {all:.0f} ms",
        "声音长 {seconds:.2f} 秒；第一段用时 {first:.0f} 毫秒，全部用时 {all:.0f} 毫秒",
    ),
    # image, compare, tables
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
    # runs and recipes
    "overlay": ("Overlay other runs", "叠加其他运行"),
    "smoothing": ("Smoothing", "平滑"),
    "axis": ("Horizontal axis", "横轴"),
    "by_step": ("Step", "步数"),
    "by_time": ("Time", "时间"),
    "axis_step": ("step", "步数"),
    "axis_time": ("seconds of training", "训练用时（秒）"),
    "no_runs": (
        "There are no runs in {root} yet. Train one in the tab Recipes, or with: sanbu train gpt2",
        "{root} 中还没有运行。请在“配方”标签页开始训练，或执行：sanbu train gpt2",
    ),
    "gone_run": ("There is no run {name!r} in {root}", "{root} 中没有名为 {name!r} 的运行"),
    "gone_table": ("{name} cannot be read", "无法读取 {name}"),
    "damaged_run": ("{name} cannot be read: {error}", "无法读取 {name}：{error}"),
    "no_metrics": ("No steps recorded", "尚无训练记录"),
    "begins": ("Training is starting; no step yet", "训练正在启动，尚未完成第一步"),
    "step_of": ("{step} / {steps}", "{step} / {steps}"),
    "stopped_at": ("stopped at {step} of {steps}", "已停止：第 {step} 步，共 {steps} 步"),
    "ranks": ("Ranks", "各进程"),
    "rank": ("rank", "进程"),
    "machine": ("machine", "机器"),
    "rows_per_second": ("rows/s", "行/秒"),
    "waiting_part": ("waiting", "等待"),
    "memory": ("memory", "内存"),
    "late_rank": (
        LATE,
        "{machine} 上的进程 {rank} 的计算时间是其他进程的 {factor:.1f} 倍，其他进程在等它",
    ),
    "torn_metrics": (
        "{file}: line {lines} cannot be read and is left out",
        "{file}：第 {lines} 行无法读取，已略过",
    ),
    "command": ("Command line of this training", "本次训练的命令行"),
    "size": ("Size of the model and memory", "模型规模与内存"),
    "size_of": (
        "{parameters} parameters; training needs about {memory}; this machine has {room} left",
        "{parameters} 个参数；训练约需 {memory}；本机剩余 {room}",
    ),
    "size_unknown": ("cannot be counted: {error}", "无法计算：{error}"),
    "part_weights": ("weights", "权重"),
    "part_gradients": ("gradients", "梯度"),
    "part_optimizer": ("optimizer", "优化器"),
    "part_activations": ("activations", "激活值"),
    "not_counted": ("activations not counted", "未计激活值"),
    "resume": ("Resume", "继续训练"),
    "stopped_runs": ("Stopped run to resume", "可继续的已停止运行"),
    "none_stopped": ("No stopped run", "没有已停止的运行"),
    "nothing_to_resume": ("Choose a stopped run to resume", "请先选择要继续的已停止运行"),
    "fields_hint": (
        "An edited value is added to the arguments above; what is typed there counts at once.",
        "修改的取值会写入上方的参数框；参数框中输入的内容立即生效。",
    ),
    "started": ("{name}: started", "{name}：已开始"),
    "resumed": ("{name}: resumed", "{name}：已继续"),
    "stopping": ("{name}: stopping after saving a checkpoint", "{name}：正在保存检查点并停止"),
    "nothing_runs": ("No training is running", "当前没有正在进行的训练"),
    "still_training": ("{name} is still training; stop it first", "{name} 仍在训练，请先停止"),
    "outside": (
        "{folder!r} lies outside {root}; give a folder name inside it",
        "{folder!r} 位于 {root} 之外，请填写其中的目录名",
    ),
    "taken_run": (
        "{name} is already a run; choose another folder, or resume it below if it was stopped",
        "{name} 已经是一个运行；请换一个目录，若它已停止，也可在下方继续训练",
    ),
    "taken_folder": (
        "{name} already holds other files; choose another folder",
        "{name} 中已有其他文件；请换一个目录",
    ),
    "not_stopped": ("{name} cannot be resumed: it is {state}", "{name} 无法继续：{state}"),
    "state_running": ("still training", "仍在训练"),
    "state_finished": ("finished", "已完成"),
    "state_gone": ("not a run", "不是一个运行"),
    "not_begun": ("{name}: not started: {reason}", "{name}：未能开始：{reason}"),
    "failed_at": (
        "{name}: failed at {step} of {steps} with exit code {code}: {reason}",
        "{name}：在第 {step} 步（共 {steps} 步）失败，退出码 {code}：{reason}",
    ),
    "killed_at": (
        "{name}: killed by signal {code} at {step} of {steps}; resume with: {command}",
        "{name}：在第 {step} 步（共 {steps} 步）被信号 {code} 终止；继续训练：{command}",
    ),
    "about_left": (", about {left:.0f} s left", "，约剩 {left:.0f} 秒"),
    "starting": ("starting", "正在启动"),
    "training_done": ("{name}: done. {place}", "{name}：已完成。{place}"),
    "training_stopped": (
        "{name}: stopped at {step} of {steps}; resume with: {command}",
        "{name}：已停止：第 {step} 步，共 {steps} 步；继续训练：{command}",
    ),
    "idle": ("No training was started here", "尚未在此开始训练"),
    "problem": ("{error}", "出错：{error}"),
    # table view and tour
    "laws": ("Columns: real and generated rows", "各列的分布：真实行与生成行"),
    "associations": ("Associations of columns: real and generated rows", "各列之间的关联：真实行与生成行"),
    "rows": ("Generated rows", "生成的行"),
    "over": ("Samples during training, newest first", "训练过程中的样本，最新的在前"),
    "draft": ("Draft", "草稿"),
    "sample": ("Newest text drawn during training", "训练过程中最新生成的文本"),
    "samples": ("Newest images drawn during training", "训练过程中最新生成的图像"),
    "tour_about": (
        "An assistant and six ways to generate digits are being trained on this machine. What is done can be tried in"
        " the other tabs: the assistant in Chat, the digits in Image and Compare. Closing this page stops nothing.",
        "本机正在训练一个助手，并用六种方法生成手写数字。已完成的部分可在其他标签页试用：助手在“对话”，数字在“图像”和“对比”。"
        "关闭本页不会中断训练。",
    ),
    "tour_base": ("pretraining on Python's documentation", "在 Python 文档上预训练"),
    "tour_sft": ("supervised fine-tuning on conversations", "在对话数据上监督微调"),
    "tour_answers": ("ranking of sft's answers", "对 sft 的回答排序"),
    "tour_reward": ("reward model, trained on the rankings", "用排序数据训练奖励模型"),
    "tour_ppo": ("PPO against the reward model, from sft", "从 sft 出发，用奖励模型做 PPO"),
    "tour_dpo": ("DPO on the rankings, from sft", "从 sft 出发，在排序数据上做 DPO"),
    "tour_measured": ("evaluation of sft, ppo and dpo", "评测 sft、ppo 和 dpo"),
    "tour_pixelcnn": ("autoregressive: pixel by pixel", "自回归：逐像素生成"),
    "tour_vae": ("all at once: variational autoencoder", "一次生成：变分自编码器"),
    "tour_gan": ("all at once: adversarial", "一次生成：对抗网络"),
    "tour_flow": ("N refinements: flow matching", "多步细化：流匹配"),
    "tour_edm": ("N refinements: diffusion", "多步细化：扩散"),
    "tour_consistency": ("1 or 2 steps: consistency, from edm", "一到两步：一致性模型，由 edm 得到"),
    "tour_comparison": ("quality, speed and diversity of all six", "对比六种方法的质量、速度与多样性"),
    "waiting": ("waiting", "等待中"),
    "done": ("ready", "已就绪"),
    "try": (": try it in {tab}", "：可在“{tab}”试用"),
    "left": ("{left} left", "还需 {left}"),
    "all_left": ("Training; everything is ready in about {left}.", "正在训练，约 {left}后全部就绪。"),
    "all_done": ("Everything is ready.", "全部就绪。"),
    "stopped": ("Training stopped: {error}", "训练已停止：{error}"),
}
ENGLISH = {f"sanbu_{name}": english for name, (english, _) in WORDS.items()}
CHINESE = {f"sanbu_{name}": chinese for name, (_, chinese) in WORDS.items()}
TEXTS = gr.I18n(en=ENGLISH, **{"zh-CN": CHINESE})  # every other Chinese is turned into zh-CN: language.py


def translate(name: str, language: Language) -> str:
    """A text of the page in one language."""
    return WORDS[name][1 if language == "zh" else 0]


def language_of(request: gr.Request | None) -> Language:
    """The language that the browser asks for; a request that the tests leave out is English."""
    accepted = (request.headers.get("accept-language") or "") if request is not None else ""
    return "zh" if accepted.lower().startswith("zh") else "en"


def say(name: str) -> Any:
    """A text of the page, in the language of the browser."""
    return TEXTS(f"sanbu_{name}")
