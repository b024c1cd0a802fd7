"""Which stretches of a text are about the patient, and which suppose, generalise or speak of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clinical_reasoner.evidence.lexicon import CLAUSE, RELATIVE, STOP, SUPPOSING, Token

Span = tuple[int, int]


def clauses(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Tokens from one beginning of a clause to the next, or to the end of the sentence."""
    clause: list[Token] = []
    for token in tokens:
        starts = token.kind in (CLAUSE, RELATIVE, STOP) or (token.kind == SUPPOSING and token.text.startswith(","))
        if starts and clause:
            yield clause
            clause = []
        clause.append(token)
    if clause:
        yield clause


def supposed_spans(tokens: Sequence[Token]) -> list[Span]:
    """Character spans of the clauses with a word that supposes, and of the relative clauses that hang on them."""
    spans: list[Span] = []
    supposed = False
    for clause in clauses(tokens):
        inherits = supposed and clause[0].kind == RELATIVE
        supposed = inherits or any(token.kind == SUPPOSING for token in clause)
        if supposed:
            spans.append((clause[0].start, clause[-1].end))
    return spans


def inside(start: int, spans: Sequence[Span]) -> bool:
    return any(first <= start < last for first, last in spans)
