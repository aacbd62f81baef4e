"""What a child process does: train a tenant and, at a stated point, kill itself with a real signal."""

import importlib
import os
import signal

from sanbu import checkpoints, training
from sanbu.loop import train
from sanbu.optimizers.search import Problem


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def after(calls, function):
    """Wrap a function so that the process dies inside its so-many-th call, its work half done."""

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
    if where == "round":  # inside an update, the gradient made and not yet used
        Problem.value, Problem.backward = after(9, Problem.value), after(9, Problem.backward)
    if where == "write":  # inside the second checkpoint, its tensors written and its folder not yet in place
        checkpoints.write_tensors = after(3, checkpoints.write_tensors)
    if where == "turn":  # between two turns of a round
        training.Training.advance = after(9, training.Training.advance)
    if where == "term":  # a polite signal between two turns: the round in progress is saved
        advance, calls = training.Training.advance, iter(range(10**9))

        def polite(self):
            result = advance(self)
            if next(calls) >= 8 and not sent and (self.turn or name == "genetic"):  # whose rounds have one turn
                sent.append(os.kill(os.getpid(), signal.SIGTERM))
            return result

        sent = []
        training.Training.advance = polite
    train(recipe, folder, resume=resume)
