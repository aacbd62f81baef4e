"""How the runs of this folder were made, by version 0.1.0 before kinds moved to their files. Kept to be read, not to be run."""
import json, inspect, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from sanbu import recipes
from sanbu.config import override, dump
from sanbu.loop import train
from sanbu.run import Run
from sanbu.interop.huggingface import export_folder
Path("text.txt").write_text("".join(f"line {i} of {i*i}: the quick brown fox\n" for i in range(60)))
QUIET=["machine.device=cpu","machine.precision=float32","machine.compile=off","machine.threads=1","schedule.sample_every=0"]
TEXT=["data.path=text.txt","data.tokenizer=byte","data.context=16","model.width=8","model.heads=2","model.layers=1","model.context=32","schedule.steps=6","schedule.batch=4","schedule.evaluate_every=3","schedule.evaluate_rows=4","schedule.checkpoint_every=3","schedule.keep=2", "average=exponential", *QUIET]
run=train(override(recipes.gpt2(),TEXT),"text")
export_folder(Run.open("text"), Path("text-huggingface"))
PIC=["model=pixelcnn","model.width=4","model.layers=1","schedule.steps=4","schedule.batch=4","schedule.evaluate_every=0","schedule.checkpoint_every=2",*QUIET]
train(override(recipes.pixelcnn(),PIC),"pixels")
FLOW=["model.width=8","model.layers=1","schedule.steps=4","schedule.batch=4","schedule.evaluate_every=0","schedule.checkpoint_every=2",*QUIET]
train(override(recipes.flow(),FLOW),"flow")
saved={}
for name,f in recipes.all().items():
    for size in ("nano","paper"):
        if "size" not in inspect.signature(f).parameters: continue
        try: saved[f"{name} {size}"]=dump(f(size=size))
        except Exception as e: print(name,size,e)
for name, changes in {
  "lora":["model=lora","model.base.width=64"],"scorer-ish":["strategy=beam-search"],"jinja":["data=chat","data.template=jinja","data.template.source=x"],
  "rows":["data.tokenizer=characters"],"file":[]}.items():
    try: saved["gpt2 "+name]=dump(override(recipes.gpt2(),changes))
    except Exception as e: print(name,e)
for kind in ("conservative-dpo","ipo","kto"):
    saved["dpo "+kind]=dump(override(recipes.dpo(),[f"objective={kind}"]))
saved["ppo rewards"]=dump(override(recipes.ppo(),['objective.rewards=[{"kind":"learned","weight":0.5},{"kind":"checked"}]']))
saved["grpo rloo"]=dump(override(recipes.grpo(),["objective=rloo"]))
saved["reward plackett-luce"]=dump(override(recipes.reward(),["objective=plackett-luce"]))
for k in ("non-saturating","wasserstein"): saved["gan "+k]=dump(override(recipes.gan(),[f"objective={k}"]))
saved["vae iwae"]=dump(override(recipes.vae(),["objective=importance-weighted","model=autoencoder","model.width=16"]))
saved["edm uniform"]=dump(override(recipes.edm(),["objective.times=uniform","average=exponential","optimizer=sgd"]))
Path("recipes.json").write_text(json.dumps(saved,indent=0))
g=Run.open("text"); out={"text":g.generate("line ",n=3,overrides=("strategy.max_tokens=12",))}
import hashlib
for n in("pixels","flow"):
    p=Run.open(n).generate(None,n=4); out[n]=hashlib.sha256(b"".join(x.tobytes() for x in p)).hexdigest()[:16]
Path("samples.json").write_text(json.dumps(out))
