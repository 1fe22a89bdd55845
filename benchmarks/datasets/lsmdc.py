"""LSMDC 2016, the movie description challenge: 101,079 training clips, 1,000 of the public test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.datasets.dataset import Dataset, File, Layout, Query, Split
from benchmarks.datasets.reading import UserFileError, lines
from dits_adapter.texts import text_fault

__all__ = ["LSMDC", "SKIPPED_CLIP"]

_COLUMNS = ("clip id", "start", "end", "aligned start", "aligned end", "sentence")
_TEST = "LSMDC16_challenge_1000_publictect.csv"
SKIPPED_CLIP = "1012_Unbreakable_00.05.16.065-00.05.21.941"


def _read(split: str, files: Mapping[str, Path]) -> Iterator[Query]:
    (path,) = files.values()
    for number, line in lines(path):
        fields = line.split("\t")
        if len(fields) != len(_COLUMNS):
            reason = f"{len(fields)} tab-separated fields where there should be 6: {', '.join(_COLUMNS)}"
            raise UserFileError(path, number, reason)
        clip_id, sentence = fields[0].strip(), fields[-1].strip()
        if clip_id.startswith('"'):  # a copy re-saved by a program that quotes whole lines
            clip_id, sentence = clip_id[1:], sentence.removesuffix('"').replace('""', '"')
        for column, text in (("clip id", clip_id), ("sentence", sentence)):
            if fault := text_fault(text):
                raise UserFileError(path, number, f"{column} {fault}")
        if split != "test-999" or clip_id != SKIPPED_CLIP:
            yield Query(sentence, clip_id)


_SOURCE = "after signing MPII's agreement: sites.google.com/site/describingmovies/download"

LSMDC = Dataset(
    name="lsmdc",
    title="LSMDC (Large Scale Movie Description Challenge 2016)",
    owner="Max Planck Institute for Informatics (MPII-MD) and MILA (M-VAD)",
    url="https://sites.google.com/site/describingmovies/",
    license="by agreement with MPII, for research; neither annotation nor clips may be passed on",
    citation="""
@article{rohrbach2017movie,
  title = {Movie Description},
  author = {Rohrbach, Anna and Torabi, Atousa and Rohrbach, Marcus and Tandon, Niket and Pal, Christopher
            and Larochelle, Hugo and Courville, Aaron and Schiele, Bernt},
  journal = {International Journal of Computer Vision},
  year = {2017}
}""",
    text="sixth column, `sentence`",
    captions="one a video in the test; clip ids repeat in training, each row a text of its own",
    videos=f"{_SOURCE}; files <movie>/<clip id>.avi",
    files={
        "LSMDC16_annos_training.csv": File(source=_SOURCE),
        "LSMDC16_annos_val.csv": File(source=_SOURCE),
        _TEST: File(source=_SOURCE),
    },
    splits={
        "train": Split(layouts=(Layout(files=("LSMDC16_annos_training.csv",), queries=101_079, videos=None),)),
        "val": Split(layouts=(Layout(files=("LSMDC16_annos_val.csv",), queries=7_408, videos=None),)),
        "test": Split(layouts=(Layout(files=(_TEST,), queries=1_000, videos=1_000),)),
        "test-999": Split(
            layouts=(Layout(files=(_TEST,), queries=999, videos=999),),
            note=f"the test of X-Pool and T-MASS, which skip {SKIPPED_CLIP}",
        ),
    },
    read=_read,
)
