"""The documents that come with popfactory, for pages to link to."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response

from spine.errors import DataError

_HERE = Path(__file__).parent
_FOLDER = (
    _HERE / "docs" if (_HERE / "docs").is_dir() else _HERE.parent / "docs"
)  # in the wheel; in the source tree


def documents() -> list[dict[str, str]]:
    """Name and title of each, by name."""
    return [{"name": path.stem, "title": _title(path)} for path in sorted(_FOLDER.glob("*.md"))]


def add_routes(app: FastAPI) -> None:
    """Answer for each as plain text: nothing in it is ever taken for a page."""

    @app.get("/docs/{name}.md")
    def document(name: str) -> Response:
        if name not in {each["name"] for each in documents()}:
            raise DataError(f"no document {name[:80]}.md came with this popfactory")
        return FileResponse(_FOLDER / f"{name}.md", media_type="text/plain; charset=utf-8")


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip()
