"""Emergencies of searching, rehearsed on copies: what remedies and the contract's definitions bring back."""

from collections.abc import Iterator

from pgconform.checks import Evidence, check
from pgconform.contract_vectors import Vector
from pgconform.model import Finding
from pgconform.procedures import emergencies
from pgconform.recovery.copies import Copies
from pgconform.subjects import Declared, Searching, searches, stored_vectors


@check("vector-index-rebuilt", guide=["muva-37"], when=["quarterly"], each=stored_vectors, drill=True)
def test_a_lost_vector_index_can_be_made_again(
    subject: Declared[Vector], evidence: Evidence, copies: Copies
) -> Iterator[Finding]:
    """A vector index that was invalid or dropped, made again as remedies say, finds what it should, and is used.

    In an emergency nobody has time to learn that searches need just the index that is gone.
    """
    yield from emergencies.rebuilt(subject, evidence, copies)


@check("search-function-restored", guide=["muva-38"], when=["quarterly"], each=searches, drill=True)
def test_a_lost_search_function_can_be_made_again(
    subject: Searching, evidence: Evidence, copies: Copies
) -> Iterator[Finding]:
    """A search function that was dropped, replaced or stripped of its grants comes back by the contract's definition.

    What was changed in the database alone, and not in the definition, is lost the day that it is needed.
    """
    yield from emergencies.restored(subject, evidence, copies)
