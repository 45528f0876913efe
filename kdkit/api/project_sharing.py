"""Methods of :class:`kdkit.Project` that publish a student, and bring projects here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdkit.api.opened import OpenedProject
from kdkit.api.reporter import Lines

if TYPE_CHECKING:
    from kdkit.api.bundle import Bundle, Unbundled
    from kdkit.core.contracts import Reporter
    from kdkit.core.sharing.release.export import Exported
    from kdkit.core.sharing.release.pull import Pulled
    from kdkit.core.sharing.release.push import Pushed

PARTS = ("teachers", "features", "versions")


class SharingMethods(OpenedProject):
    """Part of :class:`kdkit.Project`."""

    def export(
        self,
        to: Path | str,
        version: str | None = None,
        *,
        repo: str | None = None,
        merge: bool = False,
        overwrite: bool = False,
    ) -> Exported:
        """Write a version as a folder that stock open_clip or transformers loads, without kdkit and without network.

        The library loads the folder in a process of its own and must reproduce the version's features or answers.

        Args:
            to: the new folder.
            version: by default the current one.
            repo: ``ORG/NAME``: write what :meth:`push` would publish there.
            merge: whole weights of a student with adapters.
            overwrite: replace an earlier export.

        Example:
            >>> project.export("student").folder.name
            'student'
        """
        from kdkit.core.sharing.release.export import export_version

        return export_version(
            self._open(), version, Path(to), repo=repo, overwrite=overwrite, merged=merge, reporter=self.reporter
        )

    def push(
        self,
        repo: str,
        *,
        version: str | None = None,
        public: bool = False,
        pull_request: bool = False,
        dry_run: bool = False,
        license: str | None = None,
        merge: bool = False,
        refused: bool = False,
        replace: bool = False,
    ) -> Pushed:
        """Publish a version on the Hugging Face Hub, with its card and lineage.

        Before anything is sent, the stock library must reproduce the version's features or answers.

        Args:
            repo: ``ORG/NAME``; created if it does not exist.
            version: by default the current one.
            public: visible to everybody; otherwise the new repository is private.
            pull_request: open a pull request.
            dry_run: check everything; send nothing.
            license: at least as strict as the teachers'.
            merge: whole weights of a student with adapters.
            refused: publish a version that the guard refused.
            replace: also replace what people edited in the repository, which is kept otherwise.

        Example:
            >>> project.push("lab/student", dry_run=True)  # doctest: +SKIP
        """
        from kdkit.core.sharing.release.push import push_student

        return push_student(
            self._open(),
            repo,
            version=version,
            public=public,
            pull_request=pull_request,
            dry_run=dry_run,
            merged=merge,
            license=license,
            refused=refused,
            replace=replace,
            reporter=self.reporter,
        )

    @staticmethod
    def pull(
        repository: str,
        *,
        to: Path | str | None = None,
        revision: str = "main",
        features: str | None = None,
        reporter: Reporter | None = None,
    ) -> Pulled:
        """Create a project from a published student; the published hashes are checked.

        Args:
            repository: ``ORG/NAME``.
            to: the new folder; by default ``NAME``.
            revision: branch, tag or commit.
            features: data set with columns of its teachers.
            reporter: receives messages and progress.

        Example:
            >>> kdkit.Project.pull("lab/student")  # doctest: +SKIP
        """
        from kdkit.core.sharing.release.pull import pull_student

        reporter = reporter or Lines()
        into = Path(to) if to is not None else Path(repository.rpartition("/")[2])
        done = pull_student(repository, into, revision=revision, features=features, reporter=reporter)
        for lacking in done.lacking:
            reporter.warn(str(lacking))
        return done

    def bundle(
        self,
        to: Path | str,
        *,
        parts: Sequence[str] = PARTS,
        all_versions: bool = False,
        wheels: Path | str | None = None,
        dry_run: bool = False,
    ) -> Bundle:
        """Write the project as one archive with the hash of every file; images and captions stay out.

        Args:
            to: the archive, such as ``project.tar``.
            parts: what it contains besides the registry.
            all_versions: not only the current version.
            wheels: a folder of wheels to include.
            dry_run: list the contents; write nothing.

        Example:
            >>> project.bundle("project.tar", dry_run=True).archive is None
            True
        """
        from kdkit.api.bundle import Bundle
        from kdkit.core.sharing.bundle import collect, pack, shares

        project, folder = self._open(), None if wheels is None else Path(wheels)
        if dry_run:
            items = collect(project, parts, all_versions=all_versions, wheels=folder, reporter=self.reporter)
            return Bundle(shares((item.path, item.size) for item in items), None)
        done = pack(project, Path(to), parts, all_versions=all_versions, wheels=folder, reporter=self.reporter)
        contents = shares((file.path, file.size) for file in done.manifest.files)
        if any(share.part in ("features", "version") for share in contents):
            self.reporter.say("features and versions contain sample ids as the data names them; no images, no captions")
        return Bundle(contents, done)

    @staticmethod
    def unbundle(
        archive: Path | str,
        *,
        to: Path | str | None = None,
        max_size: float | None = None,
        dry_run: bool = False,
        reporter: Reporter | None = None,
    ) -> Unbundled:
        """Make a project from a bundle, if every file matches the manifest; otherwise nothing is left.

        Args:
            archive: written by :meth:`bundle`.
            to: the new folder; by default the archive's name without its suffix.
            max_size: refuse a larger project, in GB.
            dry_run: check every byte; write nothing.
            reporter: receives messages and progress.

        Example:
            >>> kdkit.Project.unbundle("project.tar")  # doctest: +SKIP
        """
        from kdkit.api.bundle import Unbundled
        from kdkit.core.data.remote_files import is_url
        from kdkit.core.project.project import Project
        from kdkit.core.sharing.bundle import check, check_target, missing_here, unpack

        source, reporter = Path(archive), reporter or Lines()
        folder = Path(to) if to is not None else Path(source.name.partition(".")[0])
        limit = None if max_size is None else int(max_size * 1e9)
        absent: tuple[str, ...] = ()
        if dry_run:
            manifest = check(source, reporter=reporter)
            check_target(folder.absolute(), manifest, limit)
        else:
            manifest = unpack(source, folder, max_size=limit, reporter=reporter)
            data = Project(folder).registry.data
            local = [entry.path for entry in data if not is_url(entry.path)]
            absent = tuple(path for path in local if not (folder / path).exists())
        return Unbundled(folder.absolute(), manifest, tuple(missing_here(manifest.requirements)), absent)
