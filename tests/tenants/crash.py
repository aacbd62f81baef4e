"""Child process: trains a tenant and kills itself with a real signal at a given point."""

import importlib
import os
import signal

from sanbu import checkpoints, training
from sanbu.loop import train
from sanbu.optimizers.search import Problem


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def after(calls, function):
    """Wrap a function so that the process kills itself at the end of the given call, before the result is used."""

    def wrapped(*arguments, **named):
        nonlocal calls
        calls -= 1
        result = function(*arguments, **named)
        return result if calls else kill()

    return wrapped


def main(name, folder, where):
    recipe = importlib.import_module(f"tests.tenants.{name}").recipe()
    recipe = recipe.model_copy(
        update={"schedule": recipe.schedule.model_copy(update={"steps": 12, "checkpoint_every": 4})}
    )
    resume = os.path.exists(os.path.join(folder, "recipe.json"))
    if where == "round":  # inside an update, after the gradient is computed and before it is used
        Problem.value, Problem.backward = after(9, Problem.value), after(9, Problem.backward)
    if where == "write":  # inside the second checkpoint: tensors written, folder not yet renamed
        checkpoints.write_tensors = after(3, checkpoints.write_tensors)
    if where == "turn":  # between two turns of a round
        training.Training.advance = after(9, training.Training.advance)
    if where == "term":  # SIGTERM between two turns: the unfinished round is saved
        advance, calls = training.Training.advance, iter(range(10**9))

        def polite(self):
            result = advance(self)
            if next(calls) >= 8 and not sent and (self.turn or name == "genetic"):  # a genetic round has a single turn
                sent.append(os.kill(os.getpid(), signal.SIGTERM))
            return result

        sent = []
        training.Training.advance = polite
    train(recipe, folder, resume=resume)
