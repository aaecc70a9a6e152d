"""Masks by llguidance (pip install "fastvlm[guide]"): answers that are JSON of a schema, match a regular
expression or a grammar.

    schema = {"type": "object", "additionalProperties": False, "required": ["shape"],
              "properties": {"shape": {"enum": ["Circle", "Square", "Star"]}}}
    model.ask("sign.png", "What shape is red?", mask=fastvlm.guide.json_schema(model, schema))
"""
from __future__ import annotations

from typing import Any, Dict, List, Union

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from ._library import Handle
from ._model import Model, tokenize
from ._session import MaskState


class _Tokens:
    """A model's tokens, as llguidance asks for them."""

    def __init__(self, model: Model, engine: Handle) -> None:
        info = model.info
        self.eos_token_id, self.bos_token_id = info.end_tokens[0], None
        self.tokens = [model.token_bytes(i) or b"" for i in range(info.n_tokens)]
        self.special_token_ids: List[int] = [i for i, text in enumerate(self.tokens)
                                             if text and tokenize(engine, _text(text), True) == [i]
                                             and tokenize(engine, _text(text)) != [i]]
        self._engine = engine  # not the model, which holds this

    def __call__(self, text: Union[str, bytes]) -> List[int]:
        return tokenize(self._engine, text if isinstance(text, str) else _text(text))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _tokenizer(model: Model) -> Any:
    engine, tokenizer = model._engine, model._guide
    if tokenizer is None:
        tokenizer = model._guide = LLTokenizer(TokenizerWrapper(_Tokens(model, engine)), model.info.n_tokens)
    return tokenizer


class _State:
    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def fill(self, mask: memoryview) -> None:
        allowed = self._matcher.compute_bitmask()
        self._check()
        # Forbidden by the caller's bias stays forbidden.
        both = int.from_bytes(mask, "little") & int.from_bytes(allowed[:mask.nbytes], "little")
        mask.cast("B")[:] = both.to_bytes(mask.nbytes, "little")

    def chosen(self, token: int) -> None:
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ValueError(f"llguidance: {self._matcher.get_error()}")


class Grammar:
    """A grammar for one model, for the option `mask`; serves any number of answers."""

    def __init__(self, model: Model, grammar: str) -> None:
        self._matcher = LLMatcher(_tokenizer(model), grammar)
        if self._matcher.is_error():
            raise ValueError(f"llguidance: {self._matcher.get_error()}")

    def start(self) -> MaskState:
        return _State(self._matcher.deep_copy())


def json_schema(model: Model, schema: Union[str, Dict[str, Any]]) -> Grammar:
    """JSON that is valid for a schema, without spaces: a small model may never end one where any number
    of line ends are allowed. The schema's "x-guidance" may say otherwise."""
    compact: Any = {"whitespace_flexible": False}
    return Grammar(model, LLMatcher.grammar_from_json_schema(schema, compact))


def regex(model: Model, expression: str) -> Grammar:
    """Text that matches a regular expression, in the syntax of Rust's crate regex."""
    return Grammar(model, LLMatcher.grammar_from_regex(expression))


def lark(model: Model, grammar: str) -> Grammar:
    """Text of a grammar in llguidance's variant of Lark's syntax."""
    return Grammar(model, LLMatcher.grammar_from_lark(grammar))
