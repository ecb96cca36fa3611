"""The page at /: what is served, and how to ask."""

import html
import json
from collections.abc import Iterable

from index_builder.encoding.clip import clip_name
from retrieval_server.indices import ServedIndex

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>popfactory retrieval server</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
  table {{ border-collapse: collapse; width: 100%; }}
  th, td {{ border-bottom: 1px solid #999; padding: .3rem .6rem; text-align: left; vertical-align: top; }}
  td.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
  pre {{ overflow-x: auto; padding: 1rem; border: 1px solid #999; }}
</style>
<h1>popfactory retrieval server</h1>
<p>Answers clip-retrieval's requests: <code>POST /knn-service</code>, <code>POST /metadata</code>,
<a href="indices-list"><code>GET /indices-list</code></a>. Besides: <code>POST /knn-batch</code>,
<code>POST /embed</code>, <a href="metrics"><code>/metrics</code></a>,
<a href="metrics-summary"><code>/metrics-summary</code></a>, <a href="ready"><code>/ready</code></a>.</p>
<table>
<tr><th>index</th><th>vectors</th><th>d</th><th>model</th><th>metadata</th></tr>
{rows}
</table>
<h2>Ask</h2>
<pre>curl -s {address}/knn-service -d {query}</pre>
</html>
"""


def front_page(indices: Iterable[ServedIndex], address: str) -> str:
    """The page as HTML, every name escaped.

    Args:
        indices: What is served.
        address: How the asker reached the server, such as http://127.0.0.1:1234.
    """
    served = list(indices)
    rows = "\n".join(
        f"<tr><td>{html.escape(index.name)}</td><td class='number'>{index.n:,}</td>"
        f"<td class='number'>{index.d}</td><td>{html.escape(_model(index))}</td>"
        f"<td>{html.escape(', '.join(index.columns))}</td></tr>"
        for index in served
    )
    query = json.dumps({"text": "a red star", "indice_name": served[0].name, "num_images": 10})
    quoted = "'" + query.replace("'", r"'\''") + "'"
    return _PAGE.format(rows=rows, address=html.escape(address), query=html.escape(quoted))


def _model(index: ServedIndex) -> str:
    clip = index.settings.clip
    return clip_name(clip) if clip is not None else "none: embeddings only"
