"""The result of ``kdkit best-of-n``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdkit.core.base.result import Result, Section, Table

if TYPE_CHECKING:
    from kdkit.core.evaluation.answering.gate_file import Gate


@dataclass(frozen=True)
class BestOfN(Result):
    """In which domains one of several answers is chosen, and by which rule."""

    gate: Gate

    def to_json(self) -> dict[str, Any]:
        """The gate; each domain with ``why``."""
        plain = self.gate.to_json()
        domains = {name: {**plain["domains"][name], "why": one.why} for name, one in self.gate.domains.items()}
        return {**plain, "domains": domains}

    def sections(self) -> list[Section]:
        """A row per domain."""
        from kdkit.core.evaluation.answering.gate import ALIGN, HEADERS, gate_rows
        from kdkit.core.evaluation.answering.names import PLAIN

        decisions = [self.gate.domains[domain] for domain in sorted(self.gate.domains)]
        opened = sum(one.rule != PLAIN for one in decisions)
        return [
            Table(HEADERS, gate_rows(decisions), ALIGN),
            "",
            f"{self.gate.model}: answers are chosen in {opened} of {len(decisions)} domains; the others get the plain "
            "answer. Accuracy on the calibration split; the rule of each fold was found on the other folds.",
        ]
