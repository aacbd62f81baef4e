"""Train a recipe in a process of its own and print how much memory it took from the moment its models were built.

python -m tests.memory.measure RECIPE [PATH=VALUE]...    prints the bytes that were measured, and the estimate
"""

import subprocess
import sys
import tempfile
import threading
import time

FIXED = (
    "schedule.steps=4", "schedule.sample_every=0", "machine.precision=float32", "machine.device=cpu",
    "machine.threads=1",
)  # fmt: skip


def anonymous():
    """Bytes of memory of this process that no file backs."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("RssAnon:"))


def measured(name, *overrides):
    """The bytes that a process of its own measured."""
    command = [sys.executable, "-m", "tests.memory.measure", "child", name, *overrides, *FIXED]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.split()[-1])


def recipe_of(name, *overrides):
    """A recipe with overrides, resolved."""
    from sanbu import recipes

    recipe, rest = recipes.make(name, [*overrides, *FIXED])
    return recipe.change(*rest).resolve()


def child(name, *overrides):
    """Train, and print the growth of the memory over what it was before the models were built."""
    import sanbu.loop
    import sanbu.training

    most = [0]

    def watch():
        while True:
            most[0] = max(most[0], anonymous())
            time.sleep(0.003)

    build, before = sanbu.training.build_models, []

    def noted(*inputs):
        before.append(anonymous())
        threading.Thread(target=watch, daemon=True).start()
        return build(*inputs)

    sanbu.training.build_models = noted
    sanbu.loop.check_run = lambda *given: None  # it would load libraries before the measurement
    with tempfile.TemporaryDirectory() as folder:
        sanbu.loop.train(recipe_of(name, *overrides), f"{folder}/run", watchers=[])
    print(max(most[0], anonymous()) - before[0])


if __name__ == "__main__":
    if sys.argv[1] == "child":
        child(*sys.argv[2:])
    else:
        from sanbu.memory.training import estimate

        found, need = measured(*sys.argv[1:]), estimate(recipe_of(*sys.argv[1:]))
        print(f"{' '.join(sys.argv[1:])}: measured {found / 1e6:.0f} MB, estimate {need.total / 1e6:.0f} MB,", end=" ")
        print(f"{need.total / found:.3f}: {need.describe()}")
