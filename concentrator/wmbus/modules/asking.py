"""What modules have in common that are asked a few questions at start-up and report by themselves after it.

Each question is repeated when unanswered; the first one, asked now and then, proves that the module lives.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

from concentrator.wmbus.modules.face import ModuleLost, ModuleReady, RadioModule

ANSWER_TIMEOUT_S = 2.0
ATTEMPTS = 3
KEEP_ALIVE_S = 60.0
RETRY_AFTER_LOSS_S = 5.0


class Question(NamedTuple):
    """One request; `words` name it when it stays unanswered."""

    words: str
    request: bytes


class AskingModule(RadioModule):
    """Start-up, keep-alive and recovery; the driver reads the bytes and says when a question is answered."""

    def __init__(self, questions: tuple[Question, ...]) -> None:
        super().__init__()
        self._questions = questions
        self._waiting_for: int | None = None
        self._listening = False
        self._attempts = 0
        self._deadline: float | None = None
        self._identity = ""

    def start(self, now: float) -> None:
        """Begin, or begin anew after the port was reopened."""
        self.data_to_send()  # what was meant for the port as it was before
        self._forget_input()
        self._listening = False
        self._ask(0, now)

    def next_timeout(self) -> float | None:
        """Tell when `handle_timeout` wants to be called, or None."""
        return self._deadline

    def handle_timeout(self, now: float) -> None:
        """Act on the timer if it has run out at `now`."""
        if self._deadline is None or now < self._deadline:
            return
        if self._waiting_for is None:
            self._ask(0, now)
        elif self._attempts < ATTEMPTS:
            self._send(now)
        else:
            words = self._questions[self._waiting_for].words
            self._lose(f"no answer to {words}, asked {ATTEMPTS} times", now)

    @abstractmethod
    def _forget_input(self) -> None:
        """Drop what was half received."""

    def _answered(self, now: float) -> None:
        """The question that is waited for was answered: go on to the next one, or listen."""
        if self._waiting_for is None:
            return
        following = self._waiting_for + 1
        if not self._listening and following < len(self._questions):
            self._ask(following, now)
            return
        if not self._listening:
            self._listening = True
            self._events.append(ModuleReady(self._identity))
        self._waiting_for = None
        self._deadline = now + KEEP_ALIVE_S

    def _ask(self, number: int, now: float) -> None:
        self._waiting_for, self._attempts = number, 0
        self._send(now)

    def _send(self, now: float) -> None:
        self._write(self._questions[self._waiting_for or 0].request)
        self._attempts += 1
        self._deadline = now + ANSWER_TIMEOUT_S

    def _lose(self, reason: str, now: float) -> None:
        self._listening = False
        self._waiting_for = None
        self._deadline = now + RETRY_AFTER_LOSS_S
        self._events.append(ModuleLost(reason))
