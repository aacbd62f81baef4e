"""The codec of vocoders: a sound or its mel in, a sound out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sanbu.codecs.audio import is_sound, read_wave, write_wave
from sanbu.codecs.codec import Written
from sanbu.config import SanbuError
from sanbu.layers.spectrogram import SILENCE, Mel, log_mel
from sanbu.space import Batch, Draft

EXAMPLE = "example.wav"  # in a run folder: the sound that is copied where no prompt is given


class WaveCodec:
    """Copy synthesis: a prompt is a sound, or a mel of the run's own convention. example: the default prompt."""

    medium, unit = "sound", "samples"

    def __init__(self, mel: Mel, example: np.ndarray | None = None) -> None:
        self.mel, self.example = mel, example

    @classmethod
    def load(cls, folder: Path, mel: Mel) -> WaveCodec:
        """The codec that was saved in a run folder."""
        path = folder / EXAMPLE
        return cls(mel, read_wave(path, mel.rate) if path.exists() else None)

    def save(self, folder: Path) -> None:
        if self.example is not None:
            write_wave(folder / EXAMPLE, self.example, self.mel.rate)

    def vocabulary(self) -> None:
        """None: sound has no tokens."""

    def request(self, prompt: str | None, label: str | None) -> str | None:
        if label is not None:
            raise SanbuError("--label: a vocoder has no labels; leave it out")
        return prompt

    def condition(self, prompt: Any, rows: int, seed: int = 0) -> Batch:
        """mel [B, mels, F] and frames [B]; a list of prompts is filled up with silence to the longest.

        prompt: path of a sound file or of a .npy file with a mel, an array of samples [N] or of a mel [mels, F], None
        for the run's example, or a list of these. Raises SanbuError for anything else.
        """
        prompts = prompt if isinstance(prompt, (list, tuple)) else [prompt]
        mels = [self.mel_of(each) for each in prompts for _ in range(rows)]
        frames = torch.tensor([mel.shape[1] for mel in mels])
        longest = int(frames.max())
        whole = torch.full((len(mels), self.mel.mels, longest), SILENCE)
        for row, mel in enumerate(mels):
            whole[row, :, : mel.shape[1]] = mel
        return {"mel": whole, "frames": frames}

    def mel_of(self, prompt: Any) -> Tensor:
        """The mel [mels, F] of a prompt."""
        if prompt is None:
            prompt = self.example
            if prompt is None:
                raise SanbuError("--prompt: this run has no example of its own; give a sound file: -p in.wav")
        if isinstance(prompt, (str, Path)):
            prompt = read_mel(Path(prompt)) if Path(prompt).suffix == ".npy" else read_wave(prompt, self.mel.rate)
        found = torch.as_tensor(np.asarray(prompt)).float()
        if found.ndim == 1 and len(found):
            return log_mel(found[None], self.mel)[0]
        if found.ndim != 2 or found.shape[0] != self.mel.mels or not found.shape[1]:
            shape = list(found.shape)
            raise SanbuError(f"prompt: given an array {shape}, allowed: samples [N], a mel [{self.mel.mels}, frames]")
        return found

    def follow(self, stop: Sequence[str] = ()) -> WaveFollower:
        """A follower that gives out the samples that are final."""
        return WaveFollower(self)

    def read(self, sample: Tensor) -> np.ndarray:
        """A wave as float32 [N]."""
        return sample.detach().float().cpu().numpy()

    def amount(self, batch: Batch) -> int:
        return batch["wave"].numel()

    def show(self, sample: np.ndarray) -> str:
        return f"{len(sample) / self.mel.rate:.2f} s of sound"

    def render(self, samples: Sequence[np.ndarray], path: Path) -> Path:
        """Write all samples into one WAV file, with a tenth of a second between them."""
        pause = np.zeros(self.mel.rate // 10, np.float32)
        parts = [part for sample in samples for part in (sample, pause)]
        return write_wave(path.with_name(path.name + ".wav"), np.concatenate(parts[:-1]), self.mel.rate)

    def export(self, samples: Sequence[np.ndarray], folder: Path, frames: Sequence[Sequence[Any]] = ()) -> Written:
        """Write a WAV per sample into a folder; a path with the suffix of a sound format is a file for one sample."""
        if is_sound(folder):
            if len(samples) > 1:
                raise SanbuError(f"--out: given the file {folder} for {len(samples)} sounds; give a folder")
            write_wave(folder, samples[0], self.mel.rate)
            return {"sounds": 1, "folder": str(folder)}
        folder.mkdir(parents=True, exist_ok=True)
        for number, sample in enumerate(samples):
            write_wave(folder / f"{number:04d}.wav", sample, self.mel.rate)
        return {"sounds": len(samples), "folder": str(folder)}


def read_mel(path: Path) -> np.ndarray:
    """A mel from a .npy file. Raises SanbuError if it cannot be read."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise SanbuError(f"{path} cannot be read as a mel: {getattr(error, 'strerror', None) or error}") from None


class WaveFollower:
    """Keeps the last draft and what it added to each row; rows end when the strategy ends them."""

    def __init__(self, codec: WaveCodec) -> None:
        self.codec, self.sample = codec, torch.zeros(0, 0)
        self.lengths = torch.zeros(0, dtype=torch.long)
        self.known = 0
        self.pieces: Sequence[np.ndarray] = ()

    def update(self, draft: Draft) -> Tensor:
        """Keep the draft."""
        final = int(draft.committed[0].sum()) if len(draft.committed) else 0
        self.sample = draft.sample
        self.lengths = self.codec.mel.hop * draft.record["frames"]
        self.pieces = [self.piece(row, final) for row in range(len(draft.sample))]
        self.known = final
        return draft.done

    def piece(self, row: int, final: int) -> np.ndarray:
        """The samples of a row that became final."""
        end = min(final, int(self.lengths[row]))
        return self.codec.read(self.sample[row, min(self.known, end) : end])

    def results(self) -> list[np.ndarray]:
        """The wave of each row, of its own length."""
        pairs = zip(self.sample, self.lengths.tolist(), strict=True)
        return [self.codec.read(row[:length]) for row, length in pairs]
