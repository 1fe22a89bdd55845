"""The encoder as a sentence-transformers model: what takes such a model takes ours."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from dits_adapter import DITSQueryEncoder
from tests.integrations.conftest import QUERY, WIDTH


def test_what_takes_a_model_takes_ours(encoder):
    model = encoder.as_sentence_transformer()
    assert model.get_embedding_dimension() == WIDTH
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # as worker processes get it
        # Not to the bit: some processors add up in another order where weights lie at another alignment.
        np.testing.assert_allclose(copied.encode_query(QUERY), encoder.encode_query(QUERY), atol=1e-6)
    texts = {str(n): f"scene {n}" for n in range(8)}
    evaluator = InformationRetrievalEvaluator(
        {"q": QUERY}, texts, {"q": {"0"}}, mrr_at_k=[8], show_progress_bar=False
    )
    scores = encoder.encode_document(texts.values()) @ encoder.encode_query(QUERY)
    rank = 1 + int((scores > scores[0]).sum())
    assert evaluator(model)["cosine_mrr@8"] == pytest.approx(1 / rank)


def test_a_saved_model_keeps_its_strength(prepared, tmp_path):
    half = DITSQueryEncoder.from_pretrained(prepared / "tiny-dits", strength=0.5)
    half.as_sentence_transformer().save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(tmp_path))
    again = SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu")
    np.testing.assert_allclose(again.encode_query(QUERY), half.encode_query(QUERY), atol=1e-6)
    np.testing.assert_allclose(again.encode(QUERY), half.encode_document(QUERY), atol=1e-6)
