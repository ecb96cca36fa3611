"""The scripts and style sheets of the pages, under an address that changes with their content."""

import hashlib
from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, JSONResponse

_FOLDER = Path(__file__).parent / "static"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class StaticFiles:
    """The files as they were when the board started."""

    def __init__(self, base: str) -> None:
        """Args: base: Address of the board, such as "/ui"."""
        found = sorted(path for path in _FOLDER.rglob("*") if path.suffix in _TYPES)
        self._files = {path.relative_to(_FOLDER).as_posix(): path for path in found}
        self._base = base
        content = b"".join(path.read_bytes() for path in found)
        self._address = f"{base}/pages/{hashlib.sha256(content).hexdigest()[:12]}"

    def head(self) -> str:
        """What the pages' head needs: every style sheet, and the script with the modules it will import."""
        sheets = [f'<link rel="stylesheet" href="{self._address}/{name}">' for name in self._of(".css")]
        modules = [f'<link rel="modulepreload" href="{self._address}/{name}">' for name in self._of(".js")]
        icon = f'<link rel="icon" href="{self._base}/favicon.ico">'
        return "".join(
            [icon, *sheets, *modules, f'<script type="module" src="{self._address}/main.js"></script>']
        )

    def add_routes(self, app: FastAPI) -> None:
        """Answer for the files and the icon."""

        # Not /static: Gradio has files of its own there.
        @app.get("/pages/{version}/{name:path}")
        def static(version: str, name: str) -> Response:
            path = self._files.get(name)
            if path is None:
                return JSONResponse({"error": "no such file"}, 404)
            # Another version's address is a page from before: it gets the new file, and keeps it no longer than needed.
            known = self._address.endswith(f"/{version}")
            headers = {"Cache-Control": "private, max-age=31536000, immutable" if known else "no-store"}
            return FileResponse(path, media_type=_TYPES[path.suffix], headers=headers)

        @app.get("/favicon.ico")
        def icon() -> FileResponse:
            return FileResponse(_FOLDER / "icon.svg", media_type="image/svg+xml")

    def _of(self, suffix: str) -> list[str]:
        names = [name for name in self._files if name.endswith(suffix)]
        return sorted(names, key=lambda name: (name != "board.css", name))  # the shared sheet first
