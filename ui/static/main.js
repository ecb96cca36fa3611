/* The board's pages: ES modules, all of them served under an address that changes with their content. */

import "./core/head.js";
import "./curate/index.js";
import "./captions/index.js";
import "./jobs/index.js";
import "./release/index.js";
import "./setup/index.js";
import { draw } from "./core/page.js";

// Gradio mounts its parts before or after this module is run: they wait in a list.
window.Popfactory = { draw };
draw();
