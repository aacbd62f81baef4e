"""Wrong command lines: exit code 2, one line that says what is wrong, and nothing left behind."""

import pytest

from tests.e2e.command_lines import SMALL, answer, furnish, names

LINES = """
generate runs/text --seed 99999999999999999999
generate runs/text --seed 9223372036854775807 -n 2
generate runs/text --seed 18446744073709551616
generate runs/flow --seed 9223372036854775807 -n 2 --out o
generate runs/text -n 99999999999
generate runs/flow -n 99999999999 --out o
generate runs/text 'strategy={"kind":["x"]}'
generate runs/text strategy.max_tokens=1000000000000000000000000000000
generate runs/text strategy.max_tokens=9223372036854775807
generate runs/text strategy=beam-search strategy.beams=1000000
generate runs/text strategy=beam-search strategy.max_tokens=1000000000000000000000000000000
generate runs/flow --out o strategy.steps=0
generate runs/flow --out o strategy.steps=-1
generate runs/flow --out o strategy.sampler=nope
generate runs/flow --out o strategy.guidance=-1
generate runs/flow --out o strategy.guidance=NaN
generate runs/flow --out o strategy.clip=maybe
generate runs/flow --out o strategy=autoregressive
generate runs/flow --out o strategy.steps=1000000000
generate runs/flow --out o strategy.steps=100000000000000000000
generate runs/flow --label 99 --out o
generate runs/flow --label -1 --out o
generate runs/flow --label x --out o
generate runs/flow --label '' --out o
generate runs/flow --label ² --out o
generate runs/flow --label 1.0 --out o
generate runs/flow --label 1e1 --out o
generate runs/flow -p nowhere.png --out o
generate runs/flow -p wrong.png --out o
generate runs/flow -p nopic.png --out o
generate runs/flow -p text.txt --out o
generate runs/flow -p folder --out o
generate runs/flow -p bomb.png --out o
generate runs/flow -p loop --out o
generate runs/flow -p dangling --out o
generate runs/gan -p half.png --out o
generate runs/x-context
serve runs/x-context --port 0
generate runs/x-deep
serve runs/x-deep --port 0
generate runs/x-huge
generate runs/x-norecipe
serve runs/x-norecipe --port 0
generate runs/x-list
generate runs/x-null
generate runs/x-vocab
train gpt2 --resume --run runs/x-norecipe
train gpt2 data.path=text.txt --run nonempty
evaluate runs/text --data empty.txt
evaluate runs/text --data flip.txt.gz
evaluate runs/text --tasks t.json
evaluate runs/text --tasks t-field.json --folder .
evaluate runs/text --tasks t-brace.json --folder .
evaluate runs/text --tasks t-choices.json --folder .
evaluate runs/text --tasks t-empty.json --folder .
evaluate runs/text --tasks t-text.json --folder .
evaluate runs/text --tasks lambada --shots ²
evaluate runs/reward --data text.txt
compare digits runs/gan
rank runs/text --out o.jsonl
rank runs/sft --out o.jsonl -n 513 --questions 1
show runs/x-norecipe
show sft base=runs/x-norecipe
show sft base=runs/flow
show ppo sft=runs/x-list reward=runs/reward
show gpt1-classify task=nope
chat a=b -p x
chat a=b
chat http://[::1 -p x
key ''
key xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
key a --keys k-empty.json
key a --keys k-list.json
key a --keys k-null.json
key a --keys k-str.json
key a --keys k-elem.json
serve runs/text --host nonsense.invalid
serve runs/text --host 999.1.1.1
serve runs/text --host ☃
serve runs/text --blocks 100000000000 --port 0 --no-studio
import hf0 nonempty
train gpt2 data.path=flip.txt.gz
train gpt2 data.path=deep.jsonl
train flow data.path=flip.zip
train flow data.path=listjson.zip
train flow data.path=labels2.zip
train flow data.path=encrypted.zip
train flow data.path=method.zip
train flow data.path=zeroside.npz
train flow data.path=numbers.npz
train flow data.path=text.npz
train flow data.path=huge.npz
train flow data.path=dims-idx3-ubyte
train flow data.path=emptyside-idx3-ubyte
train flow data.shape=[1,1000000,1000000]
train flow data.classes=1000000000
train flow data.shift=1000000
train flow model=unet model.multipliers=[]
train flow model=unet model.multipliers=[0]
train flow model=unet model.multipliers=[-1]
train flow model.path=exploding model.path.rho=1e-300
train flow model.path=betas model.path.steps=1000000000000
train sft base=runs/base data.path=c-promptlist.jsonl
train sft base=runs/base data.path=c-deep.jsonl
train sft base=runs/base data.path=c-list.json
train sft base=runs/base data.path=c-listlist.json
train sft base=runs/base data.path=flip.txt.gz
train reward sft=runs/sft path=r-answersnum.jsonl
train reward sft=runs/sft path=r-ranksstr.jsonl
train reward sft=runs/sft path=r-answersint.jsonl
train reward sft=runs/sft path=r-margin.jsonl
train reward sft=runs/sft path=r-nan.jsonl
train dpo sft=runs/sft path=p-margin.jsonl
train dpo sft=runs/sft path=r-answersint.jsonl
train gpt1-classify base=runs/sft path=l-late.jsonl
train gpt1-classify base=runs/sft path=l-num.jsonl task=regression
train gpt1-classify base=runs/sft path=l-choice.jsonl task=choice
train gpt1-classify base=runs/sft path=l-choice2.jsonl task=choice
train gpt1-classify base=runs/sft path=l-ok.jsonl data.labels=["a"]
train gpt1-classify base=runs/sft path=l-ok.jsonl data.labels=[]
train gpt1-classify base=runs/sft path=l-short.csv
train gpt2 data.tokenizer=file data.tokenizer.path=tok/list.json
train gpt2 data.tokenizer=file data.tokenizer.path=tok/null.json
train gpt2 data.tokenizer=file data.tokenizer.path=tok/vocablist.json
train gpt2 data.tokenizer=file data.tokenizer.path=tok/vocabnum.json
train gpt2 data.tokenizer=file data.tokenizer.path=tok/added.json
train gpt2 data.tokenizer=file data.tokenizer.path=tok/addednull.json
train gpt2 data.tokenizer=file data.tokenizer.path=tok/ids.json
train gpt2 data.tokenizer=file data.tokenizer.path=tok/deep.json
train gpt2 data.tokenizer=bpe data.tokenizer.vocabulary=1000000000000
train sft base=runs/sft data.template=jinja data.template.path=tpl/div.jinja
train sft base=runs/sft data.template=jinja data.template.path=tpl/format.jinja
train sft base=runs/sft data.template=jinja data.template.path=tpl/encode.jinja
train sft base=runs/sft data.template=jinja data.template.path=tpl/binary.jinja
train sft base=runs/sft data.template=jinja data.template.path=tpl/bad.json
train sft base=runs/sft data.template=jinja data.template.path=tpl/list.json
train gpt2 model={}
train gpt2 'model={"kind":"gpt2","kind":"nope"}'
train gpt2 'model={"kind":"nope"}'
train gpt2 optimizer.rest=adamw optimizer.rest.betas=[2,3]
train gpt2 optimizer=adamw optimizer.betas=[1.5,0.9]
train gpt2 optimizer=adamw optimizer.betas=[NaN,0.9]
train gpt2 optimizer=adamw optimizer.betas=[-1,0.9]
train gpt2 optimizer=adamw optimizer.roles.matrix=-1
train gpt2 optimizer=adam optimizer.betas=[1,1]
train gpt2 model=llama model.key_heads=0
train gpt2 model=llama model.key_heads=-2
train gpt2 model=llama model.hidden=0
train gpt2 model=llama model.hidden=-5
train gpt2 schedule.batch=100000000000
train gpt2 schedule.batch=99999999999999999999999
train gpt2 schedule.samples=1000000000
train gpt2 model.width=20000000
train gpt2 model.context=100000000000
train gpt2 model.context=99999999999999999999
train gpt2 optimizer.learning_rate=1e308
train gpt2 machine.threads=1000000000000
train gpt2 machine.threads=100000
train gpt2 strategy.max_tokens=1000000000000000000000000000000
train gpt2 name=../../../../evil
train runs/x-name
train gan model.width=99999999999999999999999
train gan schedule.samples=99999999999999999999999
"""


def expand(line):
    """The same with the options that are always the same: a small model, one step, a new folder."""
    words = line.split()
    if words[0] != "train" or words[1] not in SMALL or "--run" in line or "--resume" in line:
        return line
    data = ["data.path=text.txt"] if words[1] == "gpt2" and "data.path=" not in line else []
    data += ["data.path=pairs.jsonl"] if words[1] == "sft" and "data.path=" not in line else []
    small = [word for word in SMALL[words[1]] if word.split("=")[0] not in line]
    small = [word for word in small if not ("model=" in line and word.startswith("model."))]
    return " ".join(["train", words[1], *data, *small, line.split(None, 2)[2], "--run new"])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lines") / "place"
    folder.mkdir()
    furnish(folder)
    return folder


@pytest.fixture(scope="module")
def before(place):
    return names(place)


@pytest.mark.parametrize("line", LINES.strip().splitlines())
def test_is_refused_in_one_line(place, before, line):
    found = answer(place, expand(line), before)
    assert found.well(), found


IMPORTS = [f"import {kind}{number}" for kind, count in (("hf", 66), ("pipe", 70)) for number in range(count)]


@pytest.mark.slow
def test_imports_of_strange_configs(place, before):
    bad = {}
    for line in IMPORTS:
        if (place / line.split()[1]).exists():
            found = answer(place, line + " --run new", before)
            if not found.well():
                bad[line] = found
    assert not bad
