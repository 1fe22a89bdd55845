"""Module of sentence-transformers whose texts go through the rule and the cleaning of all our texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from sentence_transformers.base.modality import infer_modality
from sentence_transformers.base.modules import Transformer

from dits_adapter.encoders._families import DUAL_FAMILIES
from dits_adapter.encoders._inputs import prepare_tokenizer
from dits_adapter.texts import TextCleaning, clean_texts, warn_if_cut

__all__ = ["TextTransformer"]


class TextTransformer(Transformer):  # type: ignore[misc]
    """`Transformer` that refuses what is no text, cleans texts, and says once that it read a part of one.

    Args:
        text_cleaning: cleaning of texts before they are tokenized; saved with the module.
        arguments, options: those of `Transformer`.
    """

    config_keys: ClassVar[list[str]] = [*Transformer.config_keys, "text_cleaning"]

    def __init__(self, *arguments: Any, text_cleaning: TextCleaning = "none", **options: Any) -> None:
        super().__init__(*arguments, **options)
        if family := DUAL_FAMILIES.get(self.config.model_type):
            prepare_tokenizer(self.tokenizer, self.model, family)
        self.text_cleaning = text_cleaning
        self._cut_warned = False

    @property
    def max_tokens(self) -> int:
        """Number of tokens of a text that are read."""
        return int(self.max_seq_length)

    def count_tokens(self, texts: list[str]) -> list[int]:
        """Count the tokens of whole texts, start and end included."""
        return [len(ids) for ids in self.tokenizer(texts, truncation=False, verbose=False)["input_ids"]]

    def preprocess(self, inputs: Sequence[Any], *arguments: Any, **options: Any) -> dict[str, Any]:
        """Clean the texts among the inputs, and tokenize; the rest is as in `Transformer.preprocess`.

        Raises:
            InputError: a string that is no text. It is named by its value: batches have another order than texts.
        """
        cleaned, texts = list(inputs), []
        for row, value in enumerate(cleaned):
            if isinstance(value, str) and infer_modality(value, self.modalities) == "text":
                cleaned[row] = clean_texts(value, self.text_cleaning)[0]
                texts.append(cleaned[row])
        self._cut_warned = self._cut_warned or warn_if_cut(texts, self, stacklevel=2)
        features: dict[str, Any] = super().preprocess(cleaned, *arguments, **options)
        return features
