"""Evidence of backups: how old, how large, for how long, and whether they can be relied upon."""

from collections.abc import Iterator

from pgconform.checks import Evidence, check
from pgconform.database import Database
from pgconform.model import Figure, Finding, Nothing
from pgconform.recovery import backups
from pgconform.subjects_operations import Source, backup_sources, dated_sources

AGAIN = "-- run the backup by hand, then see why its schedule did not"


@check("backup-recent", guide=["muva-31", "vs-7", "vs-29"], when=["gate", "daily", "monthly"], each=backup_sources)
def test_there_is_a_recent_backup(subject: Source, database: Database) -> Iterator[Finding | Figure]:
    """The last sound backup is not older than declared.

    What was written since then is lost with the disk, and a migration that goes wrong goes back that far.
    """
    sound = [backup for backup in backups.found(subject, database) if not backup.wrong]
    if not sound:
        yield Finding(str(subject), "there is no sound backup", AGAIN)
        return
    hours = backups.hours_old(backups.newest(sound), subject.item.hours)
    yield Figure(f"age of the last backup ({subject})", round(hours, 2), "hours")
    if hours > subject.item.hours:
        finding = Finding(str(subject), f"the last sound backup is {hours:.1f} hours old", AGAIN)
        yield finding.against(hours, subject.item.hours, "hours")


@check("backup-sound", guide=["vs-7", "vs-29"], when=["daily", "monthly"], each=backup_sources)
def test_the_last_backup_is_sound(subject: Source, database: Database) -> Iterator[Finding]:
    """The last backup completed, and can be read.

    A job that fails every night leaves something behind every night, too.
    """
    listed = backups.found(subject, database)
    if not listed:
        raise Nothing("there is no backup to look at; backup-recent says so")
    last = backups.verified(subject, listed[-1])
    if last.wrong:
        yield Finding(str(subject), f"the last backup ({last.name}) is not sound: {last.wrong}", AGAIN)


@check("backup-size", guide=["vs-7"], when=["daily"], each=dated_sources)
def test_backups_do_not_change_much_in_size(
    subject: Source, database: Database, evidence: Evidence
) -> Iterator[Finding | Figure]:
    """The last backup has about the size of the one before, as it is there or as an earlier run has measured it.

    One that lacks half of the tables is recent, complete, and half as large.
    """
    sound = [b for b in backups.found(subject, database) if not b.wrong and b.size is not None]
    if not sound:
        raise Nothing("there is no sound backup whose size is known")
    figure = Figure(f"size of the last backup ({subject})", sound[-1].size or 0, "bytes")
    yield figure
    measured = len(sound) < 2
    before = backups.measured(figure.name, sound[-1], evidence.history) if measured else float(sound[-2].size or 0)
    if abs(figure.value - before) > subject.item.size_change * before:
        change = f"{figure.value / max(before, 1) - 1:+.0%}"
        observed = f"the last backup has {figure.value:,} bytes, the one before {before:,.0f}: {change}"
        remedy = "-- compare what they hold (pg_restore --list), before the older one goes"
        finding = Finding(str(subject), observed, remedy)
        yield finding.against(abs(figure.value - before) / max(before, 1), subject.item.size_change, "share")


@check("backup-retention", guide=["vs-7"], when=["daily"], each=dated_sources)
def test_backups_are_kept_for_long_enough(subject: Source, database: Database) -> Iterator[Finding]:
    """There is a sound backup of as long ago as declared.

    Damage that is noticed after a week needs a backup from before it.
    """
    sound = [backup for backup in backups.found(subject, database) if not backup.wrong]
    if not sound:
        raise Nothing("there is no sound backup; backup-recent says so")
    days = backups.hours_old(backups.oldest(sound), subject.item.retention_days * 24) / 24
    if days < subject.item.retention_days:
        observed = f"the oldest sound backup is {days:.1f} days old; {subject.item.retention_days:g} are declared"
        advice = "-- keep backups for longer; if they began only now, waive this until then"
        yield Finding(str(subject), observed, advice).against(days, subject.item.retention_days, "days")
