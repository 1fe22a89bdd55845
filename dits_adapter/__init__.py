"""Text queries moved to the video side of a dual encoder's space before they search video vectors.

Every public name of the package is here, and loads on first use: importing the package costs next to nothing.
docs/public-surface.md says what each one is, and what is experimental; the rest of the package is internal.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dits_adapter._extras import name_missing_extra
from dits_adapter._version import VERSION

__version__ = VERSION

_PUBLIC = {
    "encoder": ("DITSQueryEncoder",),
    "answers": ("Answer", "Match"),
    "search": ("VideoSearch",),
    "errors": (
        "ArtifactError",
        "DITSError",
        "InputError",
        "MissingCollectionError",
        "MissingExtraError",
        "SpaceMismatchError",
        "StoreError",
        "VideoError",
    ),
    "sides": ("TextSide", "VideoSide"),
    "space": ("EmbeddingSpace",),
    "texts": ("clean_texts",),
    "vectors": ("EmbeddedClips",),
    "encoders": (
        "Encoder",
        "EncoderFamily",
        "EncoderSource",
        "TextEncoder",
        "load_encoder",
        "load_text_encoder",
        "register_family",
    ),
    "video.encoder": ("EncodedSegment", "VideoEncoder"),
    "video.limits": ("DecodeLimits",),
    "video.decode": ("DecodedFrames", "Video", "VideoInfo", "decode_frames", "probe"),
    "adapters.bank": ("QueryBankAdapter", "QueryBankConfig", "fit_query_bank"),
    "adapters.base": ("Adapter",),
    "adapters.registry": ("AdapterEntry", "register_adapter", "register_entry"),
    "adapters.across": ("reduced_rank",),
    "adapters.moments": ("Matches",),
    "adapters.affine": ("AffineAdapter", "AffineConfig", "mean_shift", "procrustes", "ridge"),
    "adapters.diffusion": ("DiffusionAdapter", "DiffusionConfig", "FixedPriorAdapter", "FixedPriorConfig"),
    "adapters.dits": ("DITSAdapter", "VideoSideDITSAdapter"),
    "adapters.low_rank": ("LowRankAdapter", "LowRankConfig"),
    "adapters.mlp": ("MLPAdapter", "MLPConfig"),
    "sampler.folded": ("FoldedSampler",),
    "sampler.network": ("AlignmentNetwork",),
    "sampler.sampler": ("SamplerConfig", "TruncatedSampler"),
    "sampler.schedule": ("NoiseSchedule",),
    "xpool": ("XPool", "XPoolReranker", "XPoolScores"),
    "artifact.artifact": ("Artifact",),
    "stores.base": ("Capabilities", "VideoStore"),
    "stores.bias": ("BiasBank", "ScoreBias"),
    "stores.biasing": ("apply_bias", "remove_bias"),
    "stores.adopting": ("adopt_collection",),
    "stores.attaching": ("TextReport", "TimedText", "attach_texts", "remove_texts"),
    "stores.requests": ("Hit", "LaneRank", "ReadRequest", "SearchRequest", "VideoFilter"),
    "stores.text_lane": ("TextLane",),
    "stores.metadata": ("CollectionMetadata", "PointLayout"),
    "stores.rows": (
        "FailureRow",
        "SegmentRow",
        "StoredSegment",
        "VideoFile",
        "VideoRecord",
        "video_records",
    ),
    "stores.estimate": ("IngestEstimate", "estimate_ingest"),
    "stores.ingest": ("IngestOptions", "ingest", "ingesting"),
    "stores.copying": ("CopyReport", "copy_collection"),
    "stores.lancedb": ("LanceDBStore",),
    "stores.memory": ("MemoryStore",),
    "stores.milvus": ("MilvusStore",),
    "stores.open": ("open_store", "register_store"),
    "stores.ranking": ("exact_search",),
    "stores.report": ("IngestReport",),
    "stores.session": ("IngestSession",),
    "stores.pgvector": ("PgVectorStore",),
    "stores.qdrant.aio": ("AsyncQdrantStore",),
    "stores.qdrant.aliases": ("rebuild", "switch"),
    "stores.qdrant.options": ("CollectionOptions",),
    "stores.qdrant.recall": ("Recall", "measure_recall"),
    "stores.qdrant.store": ("QdrantStore",),
    "data.cache": ("EmbeddingCache",),
    "data.cache_writer": ("CacheWriter",),
    "data.embed": ("embed", "embed_from_store"),
    "data.embed_videos": ("EmbedVideos",),
    "data.import_vectors": ("VectorFiles", "import_vectors"),
    "data.merge": ("merge_caches",),
    "data.put": ("put_videos",),
    "data.pairs": ("Pairs", "load_pairs"),
    "data.pairs_file": ("PairsFile",),
    "data.provenance": ("TextMarks",),
    "data.report": ("EmbedReport",),
    "data.segment_table": ("segment_schema",),
    "data.timed_texts": ("timed_texts",),
    "serve.page": ("search_page",),
    "sources.base": ("Findings", "FoundText", "TextFinder"),
    "sources.captions": ("CaptionFinder", "load_captioner"),
    "sources.feedback": ("FeedbackReport", "feedback_pairs", "feedback_queries"),
    "sources.fields": ("find_pairs_in_store",),
    "sources.filter": ("FilterReport", "filter_pairs"),
    "sources.find": ("find_pairs",),
    "sources.preferences": ("PreferenceReport", "PreferenceTally", "tally_preferences"),
    "sources.report": ("PairsReport", "PairsSample"),
    "sources.rewrite": ("Rewriter",),
    "sources.speech": ("SpeechFinder", "load_recognizer"),
    "sources.text": ("VideoTexts",),
    "training.compare": ("compare",),
    "evaluation.comparison": ("Comparison",),
    "training.config": ("JointRecipe", "Recipe", "TrainingConfig"),
    "training.distill": ("Distillation", "distill"),
    "training.rows": ("standard_rows",),
    "training.run": ("TrainingReport", "train_artifact"),
    "training.joint.captions": ("Captions",),
    "training.joint.train": ("JointReport", "train_joint"),
    "evaluation.answerability": ("Answerability",),
    "evaluation.evaluate": ("Evaluation", "evaluate_scores"),
    "evaluation.reliability": ("Reliability",),
    "evaluation.calibration": ("BiasedCalibration", "Calibration", "CalibrationFit", "fit_calibration"),
    "evaluation.gap": ("GapStatistics",),
    "evaluation.hubness": ("Hubness",),
    "evaluation.preference": ("sequential_interval",),
    "evaluation.score_bias": ("bias_sharpness", "score_bias"),
    "tasks.bank": ("BankReport", "make_bank"),
    "tasks.calibrate": ("CalibrationReport", "calibrate_artifact"),
    "tasks.compare": ("compare_adapters",),
    "tasks.export": ("ExportReport", "export_artifact"),
    "tasks.gap": ("GapReport", "measure_gap"),
    "tasks.queries": ("read_queries",),
    "evaluation.metrics": (
        "DotProducts",
        "RetrievalMetrics",
        "bootstrap",
        "paired_bootstrap",
        "ranks",
        "video_to_text_ranks",
    ),
}
_HOMES = {name: f"{__name__}.{module}" for module, names in _PUBLIC.items() for name in names}

__all__ = ["__version__", *sorted(_HOMES)]

if TYPE_CHECKING:  # the same names, for type checkers and editors
    from dits_adapter.adapters.across import reduced_rank as reduced_rank
    from dits_adapter.adapters.affine import AffineAdapter as AffineAdapter
    from dits_adapter.adapters.affine import AffineConfig as AffineConfig
    from dits_adapter.adapters.affine import mean_shift as mean_shift
    from dits_adapter.adapters.affine import procrustes as procrustes
    from dits_adapter.adapters.affine import ridge as ridge
    from dits_adapter.adapters.bank import QueryBankAdapter as QueryBankAdapter
    from dits_adapter.adapters.bank import QueryBankConfig as QueryBankConfig
    from dits_adapter.adapters.bank import fit_query_bank as fit_query_bank
    from dits_adapter.adapters.base import Adapter as Adapter
    from dits_adapter.adapters.diffusion import DiffusionAdapter as DiffusionAdapter
    from dits_adapter.adapters.diffusion import DiffusionConfig as DiffusionConfig
    from dits_adapter.adapters.diffusion import FixedPriorAdapter as FixedPriorAdapter
    from dits_adapter.adapters.diffusion import FixedPriorConfig as FixedPriorConfig
    from dits_adapter.adapters.dits import DITSAdapter as DITSAdapter
    from dits_adapter.adapters.dits import VideoSideDITSAdapter as VideoSideDITSAdapter
    from dits_adapter.adapters.low_rank import LowRankAdapter as LowRankAdapter
    from dits_adapter.adapters.low_rank import LowRankConfig as LowRankConfig
    from dits_adapter.adapters.mlp import MLPAdapter as MLPAdapter
    from dits_adapter.adapters.mlp import MLPConfig as MLPConfig
    from dits_adapter.adapters.moments import Matches as Matches
    from dits_adapter.adapters.registry import AdapterEntry as AdapterEntry
    from dits_adapter.adapters.registry import register_adapter as register_adapter
    from dits_adapter.adapters.registry import register_entry as register_entry
    from dits_adapter.answers import Answer as Answer
    from dits_adapter.answers import Match as Match
    from dits_adapter.artifact.artifact import Artifact as Artifact
    from dits_adapter.data.cache import EmbeddingCache as EmbeddingCache
    from dits_adapter.data.cache_writer import CacheWriter as CacheWriter
    from dits_adapter.data.embed import embed as embed
    from dits_adapter.data.embed import embed_from_store as embed_from_store
    from dits_adapter.data.embed_videos import EmbedVideos as EmbedVideos
    from dits_adapter.data.import_vectors import VectorFiles as VectorFiles
    from dits_adapter.data.import_vectors import import_vectors as import_vectors
    from dits_adapter.data.merge import merge_caches as merge_caches
    from dits_adapter.data.pairs import Pairs as Pairs
    from dits_adapter.data.pairs import load_pairs as load_pairs
    from dits_adapter.data.pairs_file import PairsFile as PairsFile
    from dits_adapter.data.provenance import TextMarks as TextMarks
    from dits_adapter.data.put import put_videos as put_videos
    from dits_adapter.data.report import EmbedReport as EmbedReport
    from dits_adapter.data.segment_table import segment_schema as segment_schema
    from dits_adapter.data.timed_texts import timed_texts as timed_texts
    from dits_adapter.encoder import DITSQueryEncoder as DITSQueryEncoder
    from dits_adapter.encoders import Encoder as Encoder
    from dits_adapter.encoders import EncoderFamily as EncoderFamily
    from dits_adapter.encoders import EncoderSource as EncoderSource
    from dits_adapter.encoders import TextEncoder as TextEncoder
    from dits_adapter.encoders import load_encoder as load_encoder
    from dits_adapter.encoders import load_text_encoder as load_text_encoder
    from dits_adapter.encoders import register_family as register_family
    from dits_adapter.errors import ArtifactError as ArtifactError
    from dits_adapter.errors import DITSError as DITSError
    from dits_adapter.errors import InputError as InputError
    from dits_adapter.errors import MissingCollectionError as MissingCollectionError
    from dits_adapter.errors import MissingExtraError as MissingExtraError
    from dits_adapter.errors import SpaceMismatchError as SpaceMismatchError
    from dits_adapter.errors import StoreError as StoreError
    from dits_adapter.errors import VideoError as VideoError
    from dits_adapter.evaluation.answerability import Answerability as Answerability
    from dits_adapter.evaluation.calibration import BiasedCalibration as BiasedCalibration
    from dits_adapter.evaluation.calibration import Calibration as Calibration
    from dits_adapter.evaluation.calibration import CalibrationFit as CalibrationFit
    from dits_adapter.evaluation.calibration import fit_calibration as fit_calibration
    from dits_adapter.evaluation.comparison import Comparison as Comparison
    from dits_adapter.evaluation.evaluate import Evaluation as Evaluation
    from dits_adapter.evaluation.evaluate import evaluate_scores as evaluate_scores
    from dits_adapter.evaluation.gap import GapStatistics as GapStatistics
    from dits_adapter.evaluation.hubness import Hubness as Hubness
    from dits_adapter.evaluation.metrics import DotProducts as DotProducts
    from dits_adapter.evaluation.metrics import RetrievalMetrics as RetrievalMetrics
    from dits_adapter.evaluation.metrics import bootstrap as bootstrap
    from dits_adapter.evaluation.metrics import paired_bootstrap as paired_bootstrap
    from dits_adapter.evaluation.metrics import ranks as ranks
    from dits_adapter.evaluation.metrics import video_to_text_ranks as video_to_text_ranks
    from dits_adapter.evaluation.preference import sequential_interval as sequential_interval
    from dits_adapter.evaluation.reliability import Reliability as Reliability
    from dits_adapter.evaluation.score_bias import bias_sharpness as bias_sharpness
    from dits_adapter.evaluation.score_bias import score_bias as score_bias
    from dits_adapter.sampler.folded import FoldedSampler as FoldedSampler
    from dits_adapter.sampler.network import AlignmentNetwork as AlignmentNetwork
    from dits_adapter.sampler.sampler import SamplerConfig as SamplerConfig
    from dits_adapter.sampler.sampler import TruncatedSampler as TruncatedSampler
    from dits_adapter.sampler.schedule import NoiseSchedule as NoiseSchedule
    from dits_adapter.search import VideoSearch as VideoSearch
    from dits_adapter.serve.page import search_page as search_page
    from dits_adapter.sides import TextSide as TextSide
    from dits_adapter.sides import VideoSide as VideoSide
    from dits_adapter.sources.base import Findings as Findings
    from dits_adapter.sources.base import FoundText as FoundText
    from dits_adapter.sources.base import TextFinder as TextFinder
    from dits_adapter.sources.captions import CaptionFinder as CaptionFinder
    from dits_adapter.sources.captions import load_captioner as load_captioner
    from dits_adapter.sources.feedback import FeedbackReport as FeedbackReport
    from dits_adapter.sources.feedback import feedback_pairs as feedback_pairs
    from dits_adapter.sources.feedback import feedback_queries as feedback_queries
    from dits_adapter.sources.fields import find_pairs_in_store as find_pairs_in_store
    from dits_adapter.sources.filter import FilterReport as FilterReport
    from dits_adapter.sources.filter import filter_pairs as filter_pairs
    from dits_adapter.sources.find import find_pairs as find_pairs
    from dits_adapter.sources.preferences import PreferenceReport as PreferenceReport
    from dits_adapter.sources.preferences import PreferenceTally as PreferenceTally
    from dits_adapter.sources.preferences import tally_preferences as tally_preferences
    from dits_adapter.sources.report import PairsReport as PairsReport
    from dits_adapter.sources.report import PairsSample as PairsSample
    from dits_adapter.sources.rewrite import Rewriter as Rewriter
    from dits_adapter.sources.speech import SpeechFinder as SpeechFinder
    from dits_adapter.sources.speech import load_recognizer as load_recognizer
    from dits_adapter.sources.text import VideoTexts as VideoTexts
    from dits_adapter.space import EmbeddingSpace as EmbeddingSpace
    from dits_adapter.stores.adopting import adopt_collection as adopt_collection
    from dits_adapter.stores.attaching import TextReport as TextReport
    from dits_adapter.stores.attaching import TimedText as TimedText
    from dits_adapter.stores.attaching import attach_texts as attach_texts
    from dits_adapter.stores.attaching import remove_texts as remove_texts
    from dits_adapter.stores.base import Capabilities as Capabilities
    from dits_adapter.stores.base import VideoStore as VideoStore
    from dits_adapter.stores.bias import BiasBank as BiasBank
    from dits_adapter.stores.bias import ScoreBias as ScoreBias
    from dits_adapter.stores.biasing import apply_bias as apply_bias
    from dits_adapter.stores.biasing import remove_bias as remove_bias
    from dits_adapter.stores.copying import CopyReport as CopyReport
    from dits_adapter.stores.copying import copy_collection as copy_collection
    from dits_adapter.stores.estimate import IngestEstimate as IngestEstimate
    from dits_adapter.stores.estimate import estimate_ingest as estimate_ingest
    from dits_adapter.stores.ingest import IngestOptions as IngestOptions
    from dits_adapter.stores.ingest import ingest as ingest
    from dits_adapter.stores.ingest import ingesting as ingesting
    from dits_adapter.stores.lancedb import LanceDBStore as LanceDBStore
    from dits_adapter.stores.memory import MemoryStore as MemoryStore
    from dits_adapter.stores.metadata import CollectionMetadata as CollectionMetadata
    from dits_adapter.stores.metadata import PointLayout as PointLayout
    from dits_adapter.stores.milvus import MilvusStore as MilvusStore
    from dits_adapter.stores.open import open_store as open_store
    from dits_adapter.stores.open import register_store as register_store
    from dits_adapter.stores.pgvector import PgVectorStore as PgVectorStore
    from dits_adapter.stores.qdrant.aio import AsyncQdrantStore as AsyncQdrantStore
    from dits_adapter.stores.qdrant.aliases import rebuild as rebuild
    from dits_adapter.stores.qdrant.aliases import switch as switch
    from dits_adapter.stores.qdrant.options import CollectionOptions as CollectionOptions
    from dits_adapter.stores.qdrant.recall import Recall as Recall
    from dits_adapter.stores.qdrant.recall import measure_recall as measure_recall
    from dits_adapter.stores.qdrant.store import QdrantStore as QdrantStore
    from dits_adapter.stores.ranking import exact_search as exact_search
    from dits_adapter.stores.report import IngestReport as IngestReport
    from dits_adapter.stores.requests import Hit as Hit
    from dits_adapter.stores.requests import LaneRank as LaneRank
    from dits_adapter.stores.requests import ReadRequest as ReadRequest
    from dits_adapter.stores.requests import SearchRequest as SearchRequest
    from dits_adapter.stores.requests import VideoFilter as VideoFilter
    from dits_adapter.stores.rows import FailureRow as FailureRow
    from dits_adapter.stores.rows import SegmentRow as SegmentRow
    from dits_adapter.stores.rows import StoredSegment as StoredSegment
    from dits_adapter.stores.rows import VideoFile as VideoFile
    from dits_adapter.stores.rows import VideoRecord as VideoRecord
    from dits_adapter.stores.rows import video_records as video_records
    from dits_adapter.stores.session import IngestSession as IngestSession
    from dits_adapter.stores.text_lane import TextLane as TextLane
    from dits_adapter.tasks.bank import BankReport as BankReport
    from dits_adapter.tasks.bank import make_bank as make_bank
    from dits_adapter.tasks.calibrate import CalibrationReport as CalibrationReport
    from dits_adapter.tasks.calibrate import calibrate_artifact as calibrate_artifact
    from dits_adapter.tasks.compare import compare_adapters as compare_adapters
    from dits_adapter.tasks.export import ExportReport as ExportReport
    from dits_adapter.tasks.export import export_artifact as export_artifact
    from dits_adapter.tasks.gap import GapReport as GapReport
    from dits_adapter.tasks.gap import measure_gap as measure_gap
    from dits_adapter.tasks.queries import read_queries as read_queries
    from dits_adapter.texts import clean_texts as clean_texts
    from dits_adapter.training.compare import compare as compare
    from dits_adapter.training.config import JointRecipe as JointRecipe
    from dits_adapter.training.config import Recipe as Recipe
    from dits_adapter.training.config import TrainingConfig as TrainingConfig
    from dits_adapter.training.distill import Distillation as Distillation
    from dits_adapter.training.distill import distill as distill
    from dits_adapter.training.joint.captions import Captions as Captions
    from dits_adapter.training.joint.train import JointReport as JointReport
    from dits_adapter.training.joint.train import train_joint as train_joint
    from dits_adapter.training.rows import standard_rows as standard_rows
    from dits_adapter.training.run import TrainingReport as TrainingReport
    from dits_adapter.training.run import train_artifact as train_artifact
    from dits_adapter.vectors import EmbeddedClips as EmbeddedClips
    from dits_adapter.video.decode import DecodedFrames as DecodedFrames
    from dits_adapter.video.decode import Video as Video
    from dits_adapter.video.decode import VideoInfo as VideoInfo
    from dits_adapter.video.decode import decode_frames as decode_frames
    from dits_adapter.video.decode import probe as probe
    from dits_adapter.video.encoder import EncodedSegment as EncodedSegment
    from dits_adapter.video.encoder import VideoEncoder as VideoEncoder
    from dits_adapter.video.limits import DecodeLimits as DecodeLimits
    from dits_adapter.xpool import XPool as XPool
    from dits_adapter.xpool import XPoolReranker as XPoolReranker
    from dits_adapter.xpool import XPoolScores as XPoolScores

else:  # to type checkers any other name is a mistake

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            with name_missing_extra(name):
                value = getattr(import_module(_HOMES[name]), name)
            globals()[name] = value
            return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
