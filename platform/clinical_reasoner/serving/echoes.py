"""Whether an answer gives away its prompt: the instructions, or the exemplars, which may be of patients."""

from __future__ import annotations

from clinical_reasoner.llm.prompting import Message

INSTRUCTION_WORDS = 8
"""Words in a row that an answer cannot share with the instructions by chance."""
EXEMPLAR_WORDS = 25
"""With an exemplar: fewer are shared by any two patients whose descriptions come from the same clauses."""

Runs = frozenset[tuple[str, ...]]


class PromptWords:
    """What no answer to these messages may repeat word for word, unless the patient's own turn (the last one) says
    it."""

    def __init__(self, messages: list[Message]) -> None:
        own = _words(_content(messages[-1]))
        self._hidden: dict[int, Runs] = {}
        for size, of_system in ((INSTRUCTION_WORDS, True), (EXEMPLAR_WORDS, False)):
            runs: set[tuple[str, ...]] = set()
            for message in messages[:-1]:
                if (message["role"] == "system") == of_system:
                    runs |= _runs(_words(_content(message)), size)
            self._hidden[size] = frozenset(runs - _runs(own, size))

    def in_text(self, text: str) -> bool:
        words = _words(text)
        return any(not hidden.isdisjoint(_runs(words, size)) for size, hidden in self._hidden.items())


def _content(message: Message) -> str:
    content = message["content"]
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def _words(text: str) -> list[str]:
    return ["".join(letter for letter in word if letter.isalnum()) for word in text.lower().split()]


def _runs(words: list[str], size: int) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}
