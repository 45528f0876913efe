"""A plan that trains a version on: all samples, with the length and rate of a run from scratch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np

from kdkit.core.distill.plan.types import Plan
from kdkit.core.project.recipe import PreviousPart
from kdkit.core.project.versions import Version


def continue_from(plan: Plan, parent: Version) -> Plan:
    """The plan of a run from scratch, made to start from ``parent``; nothing of the recipe's ``increment`` applies."""
    lineage = parent.lineage
    known = {teacher.name: teacher.fingerprint for teacher in lineage.teachers}
    trained = {plan.domains[d] for pool in plan.pools for d in np.unique(pool.domain)}
    text = json.dumps([plan.digest, "continues", parent.name, lineage.created])
    return replace(
        plan,
        parent=parent.name,
        continued=True,
        previous=PreviousPart(),
        teachers=tuple(replace(one, new=known.get(one.name) != one.fingerprint) for one in plan.teachers),
        domains_without_rehearsal=tuple(sorted(set(lineage.data.known) - trained)),
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )


def after_stages(plan: Plan, earlier: tuple[Plan, ...]) -> Plan:
    """The plan with a digest that covers the stages before it, of which the last one covers the others."""
    if not earlier:
        return plan
    digest = hashlib.sha256(f"{earlier[-1].digest} {plan.digest}".encode()).hexdigest()
    return replace(plan, digest=digest)
