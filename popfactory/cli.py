"""The `popfactory` command: the group, and what a user reads when something goes wrong.

Each verb imports what it needs when it is called, so that --help is instant.
"""

import errno
import os
import signal
import sys

import click

from popfactory.commands import captions, curation, index, runs, servers

_DISK_ADVICE = {
    errno.ENOSPC: "make room and run it again",
    errno.EDQUOT: "make room and run it again",
    errno.EROFS: "the file system is mounted read-only, and a run needs one that can be written to",
    errno.EACCES: "get the right to read and write there and run it again",
    errno.ENOTDIR: "a file stands where a folder was needed; name another folder",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.EMFILE: "allow more open files, with `ulimit -n 65536`, and run it again",
    errno.ENFILE: "allow this machine more open files and run it again",
    errno.EIO: "the disk doesn't answer; look to it before you run it again",
}


def main() -> None:
    """Run the command; say what a user can put right in one line.

    Exit codes: 0 done, 1 what a user can put right, 2 wrong usage, 130 interrupted (resumable).
    """
    from popfactory.interruption import heed_interrupts
    from spine.errors import FactoryError

    heed_interrupts()
    # Read when torch and FAISS start their threads: spinning while they wait, they take the cores from
    # the processes that decode pictures.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        _leave("stopped; what is finished stays, and the same command goes on from there", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except FactoryError as error:
        _leave(str(error), 1)
    except KeyboardInterrupt:
        _leave("stopped; what is finished stays, and the same command goes on from there", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.errno not in _DISK_ADVICE:
            raise
        advice = _DISK_ADVICE[error.errno]
        found = os.strerror(error.errno)  # Arrow's own words for it are longer
        _leave(f"{error.filename or 'disk'}: {found}; what is finished stays: {advice}", 1)


def _leave(line: str, code: int) -> None:
    # A second Ctrl-C, while the interpreter ends, would change the exit code or print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    click.echo(f"popfactory: {line}", err=True)
    sys.exit(code)


_SECTIONS = {
    "A run": ("demo", "init", "run", "status", "why", "links", "verify", "backup"),
    "Its stages, in the order of the data": (
        *("embed", "centroids", "index", "retrieve", "fetch", "score", "select", "caption", "release"),
    ),
    "People and programs": ("ui", "concept", "serve", "serve-captions", "export-captions"),
    "Preparing": ("one-batch", "autofaiss"),
}


class _InSections(click.Group):
    """Lists the verbs by what they are for, each in one line."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        for title, names in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name.ljust(width), self.commands[name].get_short_help_str(80)) for name in names]
                )


@click.group(
    cls=_InSections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="popfactory")
def cli() -> None:
    """Build your own LAION-POP.

    From a pile of images you like to a large, clean, captioned dataset that looks like them.

    \b
    Try it without any data:     popfactory demo
    With your own pictures:      popfactory init RUN --concepts FOLDER --pool FOLDER
                                 popfactory run RUN
    """


for _module in (runs, index, curation, captions, servers):
    for _command in _module.COMMANDS:
        cli.add_command(_command)
