"""Procedures that change many rows at once: tried on copies, held, killed and repeated."""

from collections.abc import Iterator

from pgconform.catalog import Catalog
from pgconform.checks import check
from pgconform.contract import Contract
from pgconform.model import Finding
from pgconform.procedures import archiving, disturbing, fixing, making, merging
from pgconform.procedures.archiving import archivings
from pgconform.procedures.fixing import fixes
from pgconform.procedures.making import imports, onboardings
from pgconform.procedures.merging import merges
from pgconform.procedures.stage import Drilled
from pgconform.recovery.copies import Copies


@check("archive-exact", guide=["vs-17", "vs-18"], when=["monthly"], each=archivings, drill=True)
def test_archiving_moves_just_the_old_rows(
    subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies
) -> Iterator[Finding]:
    """Archiving moves each row older than its retention once, unchanged, with what hangs on it; a second run nothing.

    What is deleted before it is stored, or stored by the position of its columns, is missed when somebody asks for it.
    """
    yield from archiving.exact(subject, contract, catalog, copies)


@check("archive-undisturbed", guide=["vs-18"], when=["monthly"], each=archivings, drill=True)
def test_archiving_loses_nothing_while_others_write(
    subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies
) -> Iterator[Finding]:
    """Archiving loses and doubles no row that others change, or a second archiving moves, while it runs.

    A statement that stores and a next one that deletes do not see the same rows; what was read before the others were
    locked out is stored by both of two archivings.
    """
    yield from archiving.disturbed(subject, contract, catalog, copies)


@check("archive-interrupted", guide=["vs-18"], when=["monthly"], each=archivings, drill=True)
def test_archiving_loses_nothing_when_stopped(
    subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies
) -> Iterator[Finding]:
    """Archiving loses and doubles no row when its session or the whole server is killed; a next run completes it.

    It runs at night, unwatched, for long: sooner or later it is stopped in the middle.
    """
    yield from archiving.interrupted(subject, contract, catalog, copies)


@check("merge-complete", guide=["vs-28"], when=["monthly"], each=merges, drill=True)
def test_a_merge_moves_all_rows_and_no_others(
    subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies
) -> Iterator[Finding]:
    """After a merge every row of the second tenant is the first one's; nobody is in it twice; nobody else is touched.

    The last step deletes the second tenant, and takes along by cascade whatever was forgotten.
    """
    yield from merging.complete(subject, contract, catalog, copies)


@check("merge-undisturbed", guide=["vs-28"], when=["quarterly"], each=merges, drill=True)
def test_a_merge_loses_nothing_while_others_write(
    subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies
) -> Iterator[Finding]:
    """A row added for the second tenant meanwhile is the first one's, or refused; two merges at once are as one by one.

    A merge that locks nobody out has moved all rows but the newest, which go with the tenant when that is deleted; what
    two merges had read before either wrote is added twice.
    """
    yield from merging.undisturbed(subject, contract, catalog, copies)


@check("merge-interrupted", guide=["vs-28"], when=["quarterly"], each=merges, drill=True)
def test_a_merge_that_is_stopped_changes_nothing(
    subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies
) -> Iterator[Finding]:
    """A merge whose session is ended at any of its writes has changed nothing.

    Half of a customer's calls under another customer's name cannot be told from that customer's own any more.
    """
    yield from merging.interrupted(subject, contract, catalog, copies)


@check("onboarding-atomic", guide=["muva-7", "muva-8", "vs-25"], when=["monthly"], each=onboardings, drill=True)
def test_a_new_tenant_is_complete_or_absent(
    subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies
) -> Iterator[Finding]:
    """A new tenant is complete; where any step of making it fails, nothing of it remains.

    A tenant without its administrator or its first rows can neither be used nor be made again.
    """
    yield from making.onboarded(subject, contract, catalog, copies)


@check("onboarding-interrupted", guide=["muva-8", "vs-25"], when=["monthly"], each=onboardings, drill=True)
def test_onboarding_that_is_stopped_leaves_all_or_nothing(
    subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies
) -> Iterator[Finding]:
    """Onboarding whose session or server is killed at any of its writes left all or nothing; a next run completes it.

    A key that half a tenant holds refuses every further try to make that tenant.
    """
    yield from disturbing.interrupted(making.onboarding(subject, contract, catalog, copies))


@check("onboarding-undisturbed", guide=["muva-7", "muva-8", "vs-25"], when=["monthly"], each=onboardings, drill=True)
def test_onboarding_twice_at_once_is_as_one_after_another(
    subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies
) -> Iterator[Finding]:
    """A tenant that two sessions make at the same time is there as if one had waited for the other.

    Forms are sent twice; who looks whether a tenant is there before making it has looked too early.
    """
    yield from disturbing.undisturbed(making.onboarding(subject, contract, catalog, copies))


@check("import-atomic", guide=["vs-26"], when=["monthly"], each=imports, drill=True)
def test_an_import_takes_all_rows_or_none(
    subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies
) -> Iterator[Finding]:
    """An import takes all rows of a good file exactly as they are, and none of a file with a bad row.

    Half an import cannot be repeated, and nobody knows which half; quotes and commas are where importing fails.
    """
    yield from making.imported(subject, contract, catalog, copies)


@check("import-interrupted", guide=["vs-26"], when=["monthly"], each=imports, drill=True)
def test_an_import_that_is_stopped_takes_all_rows_or_none(
    subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies
) -> Iterator[Finding]:
    """An import whose session or server is killed at any of its writes took all rows or none; a next run completes it.

    Where each row is committed by itself, the same file is refused ever after, by its first rows.
    """
    yield from disturbing.interrupted(making.importing(subject, contract, catalog, copies))


@check("import-undisturbed", guide=["vs-26"], when=["monthly"], each=imports, drill=True)
def test_a_file_imported_twice_at_once_arrives_once(
    subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies
) -> Iterator[Finding]:
    """A file that two sessions import at the same time arrives as if one had waited for the other.

    Whoever asks for known users before adding new ones does not see those that another session is adding.
    """
    yield from disturbing.undisturbed(making.importing(subject, contract, catalog, copies))


@check("fix-exact", guide=["vs-27"], when=["monthly"], each=fixes, drill=True)
def test_a_correction_changes_what_it_declares(
    subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies
) -> Iterator[Finding]:
    """A correction changes the declared columns of one row, stamps the time of the change, and keeps all the rest.

    A changed amount without a trace of when is what an audit stumbles over.
    """
    yield from fixing.exact(subject, contract, catalog, copies)


@check("fix-interrupted", guide=["vs-27"], when=["monthly"], each=fixes, drill=True)
def test_a_correction_that_is_stopped_changes_all_or_nothing(
    subject: Drilled, catalog: Catalog, copies: Copies
) -> Iterator[Finding]:
    """A correction whose session or server is killed at any of its writes did all or nothing; a next run completes it.

    An amount without the sum that it is part of is wrong in a new way.
    """
    yield from disturbing.interrupted(fixing.fixing(subject, catalog, copies))


@check("fix-undisturbed", guide=["vs-27"], when=["monthly"], each=fixes, drill=True)
def test_a_correction_takes_back_nothing_that_others_write(
    subject: Drilled, catalog: Catalog, copies: Copies
) -> Iterator[Finding]:
    """A correction keeps what others write into the row meanwhile; two at the same time come out as one by one.

    What was read before another session wrote it is written back; sums that each computes without the other's change
    are both wrong, and the last one stays.
    """
    yield from fixing.undisturbed(subject, catalog, copies)
