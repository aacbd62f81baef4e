"""Continuous batching (Yu and others, 2022) with chunked prefill (Agrawal and others, 2024).

Requests join and leave between steps. A step decodes every running request and fills the rest of its token budget
with prompts, oldest first. When blocks run out, the newest request is preempted and prefilled again later; cached
prefixes are not prefilled. Small steps have room for speculative tokens, which cost little.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sanbu.config import SanbuError
from sanbu.models.tokens.transformer import Decoder
from sanbu.serve.block_manager import ROOT, Blocks, chain
from sanbu.serve.paged import Group, Layout, PagedCache
from sanbu.serve.request import Busy, Event, Finish, Request, Work, share_exceeded
from sanbu.serve.sampling import choose
from sanbu.serve.scoring import score
from sanbu.serve.speculate import Speculation

log = logging.getLogger("sanbu.serve")


class Engine:
    """One decoder and its requests: a lane of a Worker. `submit` may be called from any thread, `step` from one.

    blocks: number of KV-cache blocks. size: tokens per block. budget: tokens per step. rows: concurrent requests.
    queue: waiting requests. guesses: speculative tokens are added to steps of fewer tokens than this. counts: totals
    since the start. end, other_ends: tokens that end an answer. A step that raises ends only its cause.
    """

    def __init__(
        self,
        model: Decoder,
        end: int | None,
        blocks: int = 512,
        size: int = 16,
        budget: int = 512,
        rows: int = 64,
        queue: int = 256,
        guesses: int = 8,
        other_ends: tuple[int, ...] = (),
    ) -> None:
        self.ends = (end, *other_ends)
        self.model, self.budget, self.rows, self.queue = model.eval(), budget, rows, queue
        self.blocks = Blocks(blocks, size)
        self.cache = PagedCache(model, blocks, size)
        self.longest = min(model.context, blocks * size)
        self.device = model.embedding.tokens.weight.device
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.alone: deque[Request] = deque()  # after a step that raised: to be stepped one by one
        self.counts: Counter[str] = Counter()
        self.speculation = Speculation(guesses, self.blocks, self.longest, self.counts)
        self.vocabulary = model.embedding.tokens.weight.shape[0]
        self.changed = threading.Condition()

    def submit(self, *requests: Request) -> None:
        """Queue requests, all or none. Raises Busy when the queue is full, SanbuError for an invalid request."""
        for request in requests:
            self._check(request)
        with self.changed:
            if share_exceeded(self.waiting, requests[0].owner if requests else "", len(requests), self.queue):
                raise Busy(
                    f"the queue is full: {len(self.waiting)} requests are waiting, allowed: {self.queue}; retry later"
                )
            self.waiting.extend(requests)
            self.counts["requests"] += len(requests)
            self.changed.notify()

    def _check(self, request: Request) -> None:
        if not 0 < len(request.prompt) < self.longest:
            raise SanbuError(f"the prompt has {len(request.prompt)} tokens; allowed: 1 to {self.longest - 1}")
        named = [*request.bias, *request.prompt, *request.expected]
        strange = [token for token in named if not 0 <= token < self.vocabulary]
        if strange:
            raise SanbuError(f"there is no token {strange[0]}; allowed: 0 to {self.vocabulary - 1}")

    def busy(self) -> bool:
        """Whether there is work to do."""
        return bool(self.waiting or self.running)

    def fail(self) -> None:
        """A step has raised: step the running requests one by one, and end with an error those whose steps raise."""
        if self.alone:
            self._finish(self.alone.popleft(), "error")
        else:
            self.alone.extend(self.running)
            if not self.alone and self.waiting:  # it could not be admitted
                with self.changed:
                    blamed = self._next()
                    self.waiting.remove(blamed)
                self._finish(blamed, "error")
        for request in self.running:  # the step may have ended anywhere: the last token is computed again
            request.filled = min(request.filled, len(request.tokens) - 1)
            request.guess, request.matched = [], 0

    @torch.inference_mode()
    def step(self) -> None:
        """One forward pass: drop cancelled requests, admit waiting ones, plan, compute, sample and deliver."""
        self._drop()
        while self.alone and self.alone[0] not in self.running:
            self.alone.popleft()
        if not self.alone:
            self._admit()
        work = self._plan(list(self.alone)[:1] or self.running)
        if not work:
            return
        self.counts["steps"] += 1
        work = self.speculation.guess(work, len(self.running))
        self.counts["tokens"] += sum(count for _, count in work)
        ready = [request for request, count in work if count - len(request.guess) == request.missing]
        logits_RV = self._forward(work, ready)
        for request, count in work:
            self._fill(request, count - len(request.guess))
        self._sample(ready, logits_RV)
        if self.alone and not self.alone[0].missing > 1:
            self.alone.popleft()

    def _sample(self, ready: Sequence[Request], logits_RV: Tensor) -> None:
        """Sample one token per request, and one more after every accepted speculative token."""
        going, row = [], 0
        for request in ready:
            going.append((request, row))
            row += 1 + len(request.guess)
        for number in itertools.count():
            going = [(request, row) for request, row in going if self._apply_guide(request)]
            if not going:
                break
            able = [request for request, _ in going]
            events = choose(logits_RV[[row + number for _, row in going]], able)
            going = [
                (request, row)
                for (request, row), event in zip(going, events, strict=True)
                if self._accept(request, event, number)
            ]
        for request in ready:
            self.speculation.learn(request)

    def _accept(self, request: Request, event: Event, number: int) -> bool:
        """Deliver a sampled token; True if it equals the speculative one, so that the logits after it are valid too."""
        left = request.guess[number:]
        guessed = left[:1] == [event.token]
        request.matched += guessed
        if guessed:
            request.accepted += 1
        else:
            request.rejected += len(left)
        self._append(request, event)  # after the counts, which the receiver may read
        if guessed and request in self.running:
            self._fill(request, 1)
            return True
        return False

    def _apply_guide(self, request: Request) -> bool:
        """Update the mask of allowed tokens. Ends the request and returns False if the guide allows none or fails."""
        if request.guide is None:
            return True
        reason = "the grammar allows no further token"
        try:
            request.mask = request.guide.allowed()
            if bool(request.mask.any()):
                return True
        except SanbuError as error:
            reason = str(error)
        except Exception:
            log.exception("a guide failed; its request ends with an error")
            reason = ""
        self._finish(request, "error", reason)
        return False

    def _drop(self) -> None:
        with self.changed:
            left = [request for request in self.waiting if request.cancelled]
            self.waiting = deque(request for request in self.waiting if not request.cancelled)
        for request in [*left, *(request for request in self.running if request.cancelled)]:
            self._finish(request, "cancelled")

    def _admit(self) -> None:
        """Admit waiting requests, as `_next` orders them, while there are blocks for the prompt and one more."""
        while self.waiting and len(self.running) < self.rows:
            request = self._next()
            known = self._cached_blocks(request)
            idle = sum(self.blocks.owners[block] == 0 for block in known)
            wanted = -(-len(request.tokens) // self.blocks.size) - len(known)
            if self.running and wanted + 1 > self.blocks.available() - idle:
                return
            with self.changed:
                self.waiting.remove(request)
            for block in known:
                self.blocks.share(block)
            request.table, request.filled = known, len(known) * self.blocks.size
            request.cached = request.cached or request.filled
            self.counts["cached_tokens"] += request.filled
            self.running.append(request)

    def _next(self) -> Request:
        """The next request: a preempted one, else the oldest of the owner with the fewest running requests."""
        running = Counter(request.owner for request in self.running)
        return min(self.waiting, key=lambda request: (not request.preempted, running[request.owner]))

    def _cached_blocks(self, request: Request) -> list[int]:
        """Cached blocks with a prefix of the request; its last token is always computed."""
        size, request.names = self.blocks.size, []
        if request.scores is not None and len(request.scores) < len(request.prompt) - 1:
            return []  # cached tokens have no logits
        for start in range(0, len(request.tokens) - size, size):
            before = request.names[-1] if request.names else ROOT
            request.names.append(chain(before, request.tokens[start : start + size]))
        known = self.blocks.find(request.names)
        del request.names[len(known) :]
        return known

    def _plan(self, requests: Sequence[Request]) -> Work:
        """The work of the next step: decoding requests first, then prompts, oldest first."""
        left, work = self.budget, []
        for request in sorted(requests, key=lambda request: request.missing > 1):  # stable, so oldest first
            count = min(request.missing, left)
            if request in self.running and count and self._reserve(request, request.filled + count):
                work.append((request, count))
                left -= count
        return [(request, count) for request, count in work if request in self.running]

    def _reserve(self, request: Request, tokens: int) -> bool:
        """Allocate blocks, preempting the newest requests if needed; False when the request itself is the newest."""
        while len(request.table) * self.blocks.size < tokens:
            if self.blocks.available():
                request.table.append(self.blocks.take())
                continue
            newest = self.running[-1]
            self._preempt(newest)
            if newest is request:
                return False
        return True

    def _preempt(self, request: Request) -> None:
        self.counts["preemptions"] += 1
        request.preempted = True
        self.running.remove(request)
        self._release(request)
        with self.changed:
            self.waiting.appendleft(request)

    def _release(self, request: Request) -> None:
        for block in reversed(request.table):  # evict the end of a request before its prefix
            self.blocks.give(block)
        request.table, request.filled, request.names = [], 0, []

    def _forward(self, work: Work, ready: Sequence[Request]) -> Tensor:
        """logits_RV of the last token of each request that is ready to sample, and of its speculative tokens."""
        groups = group_work(work)
        order = [pair for group in groups for pair in group]
        tokens = [token for request, count in order for token in request.next_tokens(count)]
        positions = [place for request, count in order for place in range(request.filled, request.filled + count)]
        position_1T = torch.tensor([positions], device=self.device)
        self.cache.arrange(self._layout(groups, position_1T[0]))
        ends, place = {}, -1
        for request, count in order:
            place += count
            ends[id(request)] = place
        rows = [ends[id(request)] - back for request in ready for back in range(len(request.guess), -1, -1)]
        last = torch.tensor(rows, dtype=torch.long, device=self.device)
        token_1T = torch.tensor([tokens], device=self.device)

        def readout(head: Callable[[Tensor], Tensor], hidden_1TD: Tensor) -> Tensor:
            score(order, head, hidden_1TD[0])
            return head(hidden_1TD[0, last])

        return self.model(token_1T, position_1T, self.cache, readout).float()

    def _layout(self, groups: Sequence[Work], position_T: Tensor) -> Layout:
        made, slots, start = [], [], 0
        for group in groups:
            queries, wide = group[0][1], max(len(request.table) for request, _ in group)
            tables = torch.tensor(
                [request.table + request.table[-1:] * (wide - len(request.table)) for request, _ in group]
            )
            inside = torch.arange(self.blocks.size)
            slots_BS = (tables[:, :, None] * self.blocks.size + inside).flatten(1).to(self.device)
            positions_Bt = position_T[start : start + queries * len(group)].view(-1, queries)
            slots.append(slots_BS.gather(1, positions_Bt).flatten())
            made.append(Group(start, queries, slots_BS, positions_Bt))
            start += positions_Bt.numel()
        return Layout(torch.cat(slots), made)

    def _fill(self, request: Request, count: int) -> None:
        """Count `count` more tokens as cached, and enter newly filled blocks in the prefix cache."""
        request.filled += count
        size = self.blocks.size
        while len(request.names) < request.filled // size:
            number = len(request.names)
            before = request.names[-1] if request.names else ROOT
            request.names.append(chain(before, request.tokens[number * size : (number + 1) * size]))
            self.blocks.name(request.table[number], request.names[-1])

    def _append(self, request: Request, event: Event) -> None:
        """Append and deliver a token; finish the request at the end token, the grammar's end or a length limit."""
        assert event.token is not None
        if event.token in self.ends:
            self._finish(request, "stop", last=event)
            return
        request.tokens.append(event.token)
        self.counts["generated_tokens"] += 1
        reason = self._deliver(request, event)
        if reason is not None:
            self._finish(request, "error", reason)
        elif request.guide is not None and request.guide.ended():
            self._finish(request, "stop")
        elif len(request.generated) >= request.config.max_tokens or len(request.tokens) >= self.longest:
            self._finish(request, "length")

    def _finish(self, request: Request, how: Finish, reason: str = "", last: Event | None = None) -> None:
        if request in self.running:
            self.running.remove(request)
        self._release(request)
        self.counts[f"finished_{how}"] += 1
        with contextlib.suppress(Exception):  # the receiver is gone
            request.deliver(Event(finish=how, reason=reason, last=last))

    def _deliver(self, request: Request, event: Event) -> str | None:
        """Pass a token to the guide and the receiver. If either fails: why, empty if the request is not to blame."""
        try:
            if request.guide is not None:
                request.guide.commit(request.tokens[-1])
            request.deliver(event)
        except SanbuError as error:
            return str(error)
        except Exception:
            return ""
        return None


def group_work(work: Work) -> list[Work]:
    """Requests grouped by number of queries and by block count, rounded up to a power of two."""
    alike: dict[tuple[int, int], Work] = defaultdict(list)
    for request, count in work:
        alike[count, (len(request.table) - 1).bit_length()].append((request, count))
    return list(alike.values())
