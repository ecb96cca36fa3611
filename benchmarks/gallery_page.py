"""What the board's grid is held against: a page of Gradio's own parts, a number, a button and a Gallery of file paths.

python -m benchmarks.gallery_page FOLDER PORT serves FOLDER/NUMBER/*.webp.
"""

import os
import sys
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


def main() -> None:
    """Serve until stopped."""
    import gradio as gr

    folder, port = Path(sys.argv[1]), int(sys.argv[2])

    def pictures(number: float) -> list[str]:
        return sorted(str(path) for path in (folder / str(int(number))).glob("*.webp"))

    with gr.Blocks(fill_width=True) as page:
        number = gr.Number(label="Number", precision=0)
        button = gr.Button("Open")
        gallery = gr.Gallery(columns=8, height=900, elem_id="gallery")
        button.click(pictures, number, gallery, show_progress="hidden")
    page.launch(server_name="127.0.0.1", server_port=port, allowed_paths=[str(folder)], quiet=True)


if __name__ == "__main__":
    main()
