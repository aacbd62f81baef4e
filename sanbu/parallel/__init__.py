"""Everything that knows of more than one process; nothing else in the package does.

layout.py       the degrees of a recipe's layout, checked against the world, the batch and the model
world.py        this process among the others: groups, sums, agreement
sharing.py      work on many rows, divided over ranks: evaluation and sampling
rows.py         rows of a round, divided over the data ranks: drawing, scores, held-out rows
deferred.py     models that are built without contents and filled part by part
lost.py         ranks that are gone or do not answer, named by the others
pace.py         speed, waiting and memory of each rank
launch.py       processes for a layout, started by torchrun
divide.py       a recipe's models and searches, applied to the layout in one order
turns.py        what the processes do together in a turn
states.py       the state of divided models, and what a rank takes of a whole one
replicas.py     data parallelism: gradients that are summed while the backward pass goes on
shards.py       ZeRO: optimizer states, gradients and weights divided over ranks
tensors.py      tensor and sequence parallelism: plans as data
pipeline.py     pipeline parallelism: stages and schedules
sequence.py     context parallelism: attention over positions that lie on several ranks (Ulysses)
clip.py         the norm of a gradient that lies on several ranks
matrices.py     Muon on matrices that lie on several ranks
stored.py       checkpoints that every rank writes a part of
reading.py      checkpoints that every rank reads a part of
"""
