"""Extensions: installed, recent enough, and not where the API would offer their functions."""

from collections.abc import Iterator

from pgconform.catalog import Catalog
from pgconform.checks import check
from pgconform.contract import Contract, ExtensionPromise
from pgconform.model import Finding
from pgconform.names import quote


def extensions(contract: Contract) -> Iterator[tuple[str, ExtensionPromise]]:
    """Declared extensions."""
    return iter(contract.extensions.items())


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


@check("extension-installed", guide=["muva-2"], when=["gate"], each=extensions)
def test_every_declared_extension_is_installed(
    subject: tuple[str, ExtensionPromise], catalog: Catalog
) -> Iterator[Finding]:
    """Every declared extension is installed, or the server does itself what it was for.

    Without pgvector there is no search; without a generator of UUIDs no insert.
    """
    name, promise = subject
    builtin = promise.builtin_from is not None and catalog.server.version >= promise.builtin_from * 10_000
    if catalog.extension(name) is None and not builtin:
        where = f" schema {quote(promise.schema)}" if promise.schema else ""
        create = f"create schema if not exists {quote(promise.schema)};\n" if promise.schema else ""
        yield Finding(quote(name), "the extension is not installed", f"{create}create extension {quote(name)}{where};")


@check("extension-version", guide=["muva-2"], when=["gate"], each=extensions)
def test_every_declared_extension_is_recent_enough(
    subject: tuple[str, ExtensionPromise], catalog: Catalog
) -> Iterator[Finding]:
    """Every installed extension has at least the declared version.

    pgvector before 0.8.2 overflows a buffer in parallel index builds, before 0.8.3 vacuum can corrupt an index.
    """
    name, promise = subject
    found = catalog.extension(name)
    if found and promise.minimum and _number(found.version) < _number(promise.minimum):
        observed = f"version {found.version} is installed, {promise.minimum} is the least without known defects"
        yield Finding(quote(name), observed, f"alter extension {quote(name)} update;")


@check("extension-schema", guide=["muva-2"], when=["gate"], each=extensions)
def test_no_extension_lies_in_an_exposed_schema(
    subject: tuple[str, ExtensionPromise], catalog: Catalog, contract: Contract
) -> Iterator[Finding]:
    """Every declared extension lies in its declared schema, and in none that the API exposes.

    The API would offer each of the extension's functions to every caller.
    """
    name, promise = subject
    found = catalog.extension(name)
    declared = "" if promise.schema in contract.schemas.exposed else promise.schema
    wanted = declared or "extensions"
    exposed = found is not None and found.schema in contract.schemas.exposed
    if found and (exposed or (declared and found.schema != declared)):
        observed = f"it lies in {quote(found.schema)}" + (", which the API exposes" if exposed else "")
        remedy = f"create schema if not exists {quote(wanted)};\n"
        yield Finding(quote(name), observed, f"{remedy}alter extension {quote(name)} set schema {quote(wanted)};")
